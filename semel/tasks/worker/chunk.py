"""Chunks of jobs, from the lease to their recorded outcomes. Those that share a message are computed together."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby

from semel.cache.store import VectorStore
from semel.errors import (
    BackendError,
    DeviceLostError,
    FingerprintError,
    ModelLoadError,
    SemelError,
    StorageFullError,
    UnavailableError,
    UnknownModelError,
)
from semel.log import get_log
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.rows import NO_KEY, ChunkWork, Place
from semel.tasks.jobs.store import JobStore
from semel.tasks.jobs.turns import Turn, Window
from semel.tasks.worker.embed import CancelledError, Embedder, Terms
from semel.tasks.worker.models import LoadedModels
from semel.tasks.worker.outcomes import outcome_of
from semel.tasks.worker.suspects import Suspects
from semel.values.text import Input, ItemError, Outcome
from semel.values.vectors import Computed

log = get_log("chunk")

_ELSEWHERE_S = 0.5
"""Pause before a chunk returns to a queue that this worker also consumes, so that another worker can take it."""

_NO_DATABASE_S = 5.0
"""Pause of chunks that the database could not store."""

_CANCEL_CHECK_S = 0.5
"""How often a running chunk checks whether its job was cancelled."""


class ChunkRunner:
    """Leases chunks, computes them and records their outcomes.

    Args:
        owner: this worker's id, which its leases carry.
        lease_s: how long a lease lasts unless the worker renews it.
        max_attempts: how often a chunk may fail as a whole before its texts fail.
        refuse: called with a model, its fingerprint and the reason when the model cannot be used here; returns
            whether another worker has its jobs now.
        record: called with the `Message` of each finished chunk.
        window: returns what may be under way on this worker's queue; None leaves the next turns to others.
        send: called with that window and the chunks whose turn it is, after chunks were finished.
    """

    def __init__(
        self,
        jobs: JobStore,
        chunks: ChunkStore,
        store: VectorStore,
        embedder: Embedder,
        models: LoadedModels,
        *,
        owner: str,
        lease_s: float,
        max_attempts: int,
        refuse: Callable[[str, bytes, str], bool],
        record: Callable[[Message], None],
        window: Callable[[], Window | None] = lambda: None,
        send: Callable[[Window, Sequence[Turn]], None] = lambda _window, _turns: None,
    ) -> None:
        self._jobs = jobs
        self._chunks = chunks
        self._store = store
        self._embedder = embedder
        self._models = models
        self._window = window
        self._send = send
        self._record_message = record
        self._refuse = refuse
        self._owner = owner
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._in_hand: dict[Place, tuple[ChunkWork, Computed]] = {}
        self._lost: set[Place] = set()
        self._suspects = Suspects(chunks, embedder)

    def in_hand(self) -> list[Place]:
        """(job id, position) of the chunks that are being computed; their leases must be renewed."""
        return list(self._in_hand)

    def lost(self, places: Collection[Place]) -> None:
        """Stop computing chunks whose lease has passed to another worker."""
        self._lost.update(place for place in places if place in self._in_hand)

    def progress(self) -> list[tuple[str, int, int]]:
        """(job id, position, finished texts) of the chunks that are being computed."""
        return [
            (*place, sum(key in computed.outcomes for key in work.keys))
            for place, (work, computed) in list(self._in_hand.items())
        ]

    def run(self, places: Sequence[Place]) -> None:
        """Compute chunks of one vector space, unless another worker has them or has finished them.

        Running them twice has the same outcome.

        Raises:
            BackendError: the device is lost. The chunks were returned, or their texts failed after too many attempts.
        """
        leased = self._chunks.lease(places, owner=self._owner, ttl_s=self._lease_s)
        groups = [(works, Computed()) for works in _groups(leased)]
        mine = {work.place: (work, done) for works, done in groups for work in works}
        self._lost -= mine.keys()
        self._in_hand |= mine
        try:
            while groups:
                works, done = groups.pop(0)
                self._do(works, done)
                self._put_down(mine, works)
        finally:
            untouched = [work for works, _ in groups for work in works]  # after an error
            self._put_down(mine, [work for work, _ in mine.values()])
            if untouched:
                self._chunks.give_back_uncharged([work.place for work in untouched], owner=self._owner)

    def _put_down(self, mine: Mapping[Place, tuple[ChunkWork, Computed]], works: Sequence[ChunkWork]) -> None:
        for work in works:
            place = work.place
            if self._in_hand.get(place) is mine[place]:  # otherwise the lease expired and another thread has it
                del self._in_hand[place]

    def _do(self, works: Sequence[ChunkWork], done: Computed) -> None:
        first = works[0]
        logger = log.bind(job=first.job_id, chunk=first.position, chunks=len(works))
        started_at = time.time()
        try:
            with self._suspects.turn(first):
                self._compute(works, done)
            self._record(works, done, started_at)
            logger.debug("chunks done", texts=len(done.outcomes), seconds=round(time.time() - started_at, 3))
        except CancelledError:
            self._give_back(works)
            logger.info("chunks stopped, their jobs were cancelled or another worker has them")
        except (StorageFullError, UnavailableError) as error:
            self._pause(works, error)
        except FingerprintError as error:
            self._give_back(works)
            for job_id in dict.fromkeys(work.job_id for work in works):
                self._jobs.fail(job_id, ItemError.of(error))
            logger.error("jobs failed", reason=str(error))
        except (ModelLoadError, UnknownModelError) as error:
            logger.error("model not usable on this worker", reason=str(error))
            if self._refuse(first.model, first.fingerprint, str(error)):
                time.sleep(_ELSEWHERE_S)
                self._give_back(works)
            else:
                self._give_up_or_back(works, done, ItemError.of(error), started_at)
        except BackendError as error:
            # These chunks may be what kills the device, so the attempts are bounded even if another worker could
            # take them.
            if first.tries < 2 * self._max_attempts and self._refuse(first.model, first.fingerprint, str(error)):
                self._give_back(works, suspect=True)
            else:
                self._give_up_or_back(
                    works, done, ItemError(DeviceLostError.code, str(error)), started_at, suspect=True
                )
            raise
        except Exception as error:  # noqa: BLE001  # the worker's edge: it ends these chunks, not the worker
            self._after_unforeseen(works, done, error, started_at)

    def _pause(self, works: Sequence[ChunkWork], error: SemelError) -> None:
        """Return chunks after a while, because the database has no room or does not answer: it is not their fault."""
        log.warning("chunks wait for the database", chunks=len(works), reason=str(error))
        with suppress(SemelError):  # the database may still be in trouble
            self._jobs.explain({work.job_id for work in works}, f"waits: {error}")
        time.sleep(_NO_DATABASE_S)
        with suppress(SemelError):  # then their leases end
            self._chunks.give_back_uncharged([work.place for work in works], owner=self._owner)

    def _after_unforeseen(
        self, works: Sequence[ChunkWork], done: Computed, error: Exception, started_at: float
    ) -> None:
        if len(works) > 1:  # one of them may be at fault
            for work in works:
                self._do([work], Computed())
            return
        log.error("chunk failed", job=works[0].job_id, chunk=works[0].position, exc_info=error)
        problem = ItemError("internal_error", f"{type(error).__name__}: {error}")
        self._give_up_or_back(works, done, problem, started_at)

    def _give_back(self, works: Sequence[ChunkWork], *, suspect: bool = False) -> None:
        """Return chunks, and send those whose turn it is, which may be the same ones."""
        self._chunks.give_back(works, suspect=suspect)
        window = self._window()
        if window is not None:
            self._send(window, self._chunks.take_for_dispatch(window))

    def _give_up_or_back(
        self, works: Sequence[ChunkWork], done: Computed, error: ItemError, started_at: float, *, suspect: bool = False
    ) -> None:
        """Return chunks that may be tried again; in the others, the texts without a vector fail."""
        back = [work for work in works if work.tries < self._max_attempts]
        given_up = [work for work in works if work.tries >= self._max_attempts]
        if back:
            self._give_back(back, suspect=suspect)
        if given_up:
            for key in (key for work in given_up for key in work.keys):
                if key not in done.outcomes:
                    done.fail(key, error)
            self._record(given_up, done, started_at)

    def _compute(self, works: Sequence[ChunkWork], done: Computed) -> None:
        """Look all keys up at once; the texts of a chunk are unpacked only if one of its keys is missing."""
        open_keys = [[k for i, k in enumerate(work.keys) if k != NO_KEY and i not in work.settled] for work in works]
        keys = list(dict.fromkeys(key for of_chunk in open_keys for key in of_chunk))
        found = self._store.lookup(keys)
        for row in found.present.nonzero()[0].tolist():
            tokens, truncated = int(found.tokens[row]), bool(found.truncated[row])
            done.add(keys[row], Outcome.HIT, tokens=tokens, truncated=truncated)
        if found.all_present:
            return
        missing: dict[bytes, Input] = {}
        absent = set(keys) - done.outcomes.keys()
        for work, of_chunk in zip(works, open_keys, strict=True):
            if not absent.isdisjoint(of_chunk):
                texts = work.texts()
                missing |= {key: texts[i] for i, key in enumerate(work.keys) if key in absent}
        self._compute_missing(works, missing, done)

    def _compute_missing(self, works: Sequence[ChunkWork], missing: dict[bytes, Input], done: Computed) -> None:
        first = works[0]
        with self._models.using(first.model) as model:
            space = model.spaces.get(first.prompt_name)
            if space is None or space.fingerprint != first.fingerprint:
                raise FingerprintError(
                    f"the model {first.model!r} changed on this worker since the job was submitted; "
                    "submit the job again"
                )
            places = frozenset(work.place for work in works)
            terms = Terms(still_wanted=self._still_wanted(places), label=places, alone=first.attempts > 1)
            if terms.alone:
                self._suspects.compute(model, first, missing, done, terms)
            else:
                self._embedder.compute(
                    model, first.prompt_name, missing, lane=first.lane, variant=first.variant, terms=terms, into=done
                )

    def _still_wanted(self, places: Collection[Place]) -> Callable[[], bool]:
        checked_at = time.monotonic()
        job_ids = list({job_id for job_id, _ in places})

        def still_wanted() -> bool:
            nonlocal checked_at
            if self._lost.issuperset(places):
                return False
            if time.monotonic() - checked_at < _CANCEL_CHECK_S:
                return True
            checked_at = time.monotonic()
            return self._jobs.any_active(job_ids)

        return still_wanted

    def _record(self, works: Sequence[ChunkWork], done: Computed, started_at: float) -> None:
        window = self._window()
        finished = [outcome_of(work, done) for work in works]
        recorded, turns = self._chunks.finish(finished, window)
        if window is not None:
            self._send(window, turns)
        for each, ours in zip(finished, recorded, strict=True):
            work = each.work
            if ours:
                # Without the texts that were refused when the job was submitted, and those of an earlier run.
                new = [o for i, o in enumerate(each.outcomes) if i not in work.kept and i not in work.errors]
                self._record_message(Message(work.model, work.sent_at, started_at, Counter(new)))
            else:
                log.warning("lease expired, another worker has this chunk", job=work.job_id, chunk=work.position)


def _groups(works: Sequence[ChunkWork]) -> Iterator[list[ChunkWork]]:
    """The chunks to compute together: those of one space. A chunk that was tried before comes last, and is alone."""
    fresh = sorted((work for work in works if work.attempts == 1), key=_space_of)
    for _, group in groupby(fresh, key=_space_of):
        yield list(group)
    yield from ([work] for work in works if work.attempts > 1)


def _space_of(work: ChunkWork) -> tuple[str, str, bytes, str, str]:
    return work.model, work.prompt_name, work.fingerprint, work.lane, work.variant.to_json()
