"""What became of each text of a chunk, from what was computed for its keys."""

from semel.errors import TextTooLongError
from semel.tasks.jobs.rows import ChunkWork, Finished
from semel.values.text import ItemError, Outcome
from semel.values.vectors import Computed


def outcome_of(work: ChunkWork, done: Computed) -> Finished:
    """The finished chunk.

    Args:
        done: the outcome of each key.
    """
    errors = dict(work.errors)
    outcomes = []
    seen: set[bytes] = set()
    too_long = TextTooLongError()
    for i, key in enumerate(work.keys):
        if i in work.kept:
            outcomes.append(work.before[i])
            continue
        outcome = done.outcomes.get(key, Outcome.FAILED)
        if i not in errors and key in done.errors:
            errors[i] = done.errors[key]
        if i not in errors and not work.truncate and done.truncated.get(key):
            errors[i] = ItemError.of(too_long)
        if key in seen and outcome is Outcome.COMPUTED:
            outcome = Outcome.COALESCED  # an equal text in this chunk was computed
        seen.add(key)
        outcomes.append(Outcome.FAILED if i in errors else outcome)
    settled = [key for i, key in enumerate(work.keys) if i not in work.kept]
    return Finished(
        work,
        outcomes,
        errors,
        truncated=sum(done.truncated.get(key, False) for key in settled),
        tokens=sum(done.tokens.get(key, 0) for key in settled),
    )
