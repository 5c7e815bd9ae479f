"""What became of each text of a chunk, from what was computed for its keys."""

from semel.errors import TextTooLongError
from semel.tasks.jobs.rows import ChunkWork, Finished
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Outcome, size_of
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
    return Finished(work, outcomes, errors, _read(work, done))


def _read(work: ChunkWork, done: Computed) -> ReadCounts:
    """How much the model read of the texts that this run settled."""
    settled = [i for i in range(len(work.keys)) if i not in work.kept]
    truncated = [done.truncated.get(work.keys[i], False) for i in settled]
    texts = work.texts() if any(truncated) else [""] * len(work.keys)
    tokens = [done.tokens.get(work.keys[i], 0) for i in settled]
    return ReadCounts.of([size_of(texts[i]) for i in settled], tokens, truncated)
