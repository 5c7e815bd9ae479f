"""One chunk of a job, from the lease to its recorded outcomes."""

import time
from collections import Counter
from collections.abc import Callable

from semel.cache.store import VectorStore
from semel.errors import (
    BackendError,
    DeviceLostError,
    FingerprintError,
    ModelLoadError,
    StorageFullError,
    TextTooLongError,
    UnknownModelError,
)
from semel.log import get_log
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.chunks import ChunkStore
from semel.tasks.jobs.rows import NO_KEY, ChunkWork
from semel.tasks.jobs.store import JobStore
from semel.tasks.worker.embed import CancelledError, Embedder
from semel.tasks.worker.models import LoadedModels
from semel.values.text import ItemError, Outcome
from semel.values.vectors import Computed

log = get_log("chunk")

_ELSEWHERE_S = 0.5
"""Pause before a chunk returns to a queue that this worker also consumes, so that another worker can take it."""

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
    ) -> None:
        self._jobs = jobs
        self._chunks = chunks
        self._store = store
        self._embedder = embedder
        self._models = models
        self._record_message = record
        self._refuse = refuse
        self._owner = owner
        self._lease_s = lease_s
        self._max_attempts = max_attempts
        self._in_hand: dict[tuple[str, int], Computed] = {}

    def in_hand(self) -> list[tuple[str, int]]:
        """(job id, position) of the chunks that are being computed; their leases must be renewed."""
        return list(self._in_hand)

    def progress(self) -> list[tuple[str, int, int]]:
        """(job id, position, finished texts) of the chunks that are being computed."""
        return [(*place, len(computed.outcomes)) for place, computed in list(self._in_hand.items())]

    def run(self, job_id: str, position: int) -> None:
        """Compute one chunk, unless another worker has it or has finished it. Running it twice has the same outcome.

        Raises:
            BackendError: the device is lost. The chunk was returned, or its texts failed after too many attempts.
        """
        work = self._chunks.lease(job_id, position, owner=self._owner, ttl_s=self._lease_s)
        if work is None:
            return
        done = self._in_hand[job_id, position] = Computed()
        try:
            self._do(work, done)
        finally:
            if self._in_hand.get((job_id, position)) is done:  # otherwise the lease expired and another thread has it
                del self._in_hand[job_id, position]

    def _do(self, work: ChunkWork, done: Computed) -> None:
        job_id, position = work.job_id, work.position
        logger = log.bind(job=job_id, chunk=position)
        started_at = time.time()
        try:
            self._compute(work, done)
            self._record(work, done, started_at)
            logger.debug("chunk done", texts=len(work.keys), seconds=round(time.time() - started_at, 3))
        except CancelledError:
            self._chunks.give_back(work)
            logger.info("chunk stopped, its job was cancelled")
        except (StorageFullError, FingerprintError) as error:
            self._chunks.give_back(work)
            self._jobs.fail(job_id, ItemError.of(error))
            logger.error("job failed", reason=str(error))
        except (ModelLoadError, UnknownModelError) as error:
            logger.error("model not usable on this worker", reason=str(error))
            if self._refuse(work.model, work.fingerprint, str(error)):
                time.sleep(_ELSEWHERE_S)
                self._chunks.give_back(work)
            else:
                self._give_up_or_back(work, ItemError.of(error), started_at)
        except BackendError as error:
            # This chunk may be what kills the device, so the attempts are bounded even if another worker could take it.
            if work.attempts < 2 * self._max_attempts and self._refuse(work.model, work.fingerprint, str(error)):
                self._chunks.give_back(work)
            else:
                self._give_up_or_back(work, ItemError(DeviceLostError.code, str(error)), started_at)
            raise
        except Exception as error:  # the worker's edge: an unforeseen error ends one chunk, not the worker
            logger.exception("chunk failed")
            self._give_up_or_back(work, ItemError("internal_error", f"{type(error).__name__}: {error}"), started_at)

    def _give_up_or_back(self, work: ChunkWork, error: ItemError, started_at: float) -> None:
        if work.attempts < self._max_attempts:
            self._chunks.give_back(work)
            return
        failed = Computed()
        for key in work.keys:
            failed.fail(key, error)
        self._record(work, failed, started_at)

    def _compute(self, work: ChunkWork, done: Computed) -> None:
        """Look all keys up at once; the texts are unpacked only if a key is missing."""
        keys = list(dict.fromkeys(key for i, key in enumerate(work.keys) if key != NO_KEY and i not in work.kept))
        found = self._store.lookup(keys)
        for row in found.present.nonzero()[0].tolist():
            tokens, truncated = int(found.tokens[row]), bool(found.truncated[row])
            done.add(keys[row], Outcome.HIT, tokens=tokens, truncated=truncated)
        if found.all_present:
            return
        texts = work.texts()
        absent = set(keys) - done.outcomes.keys()
        missing = {key: texts[i] for i, key in enumerate(work.keys) if key in absent}
        with self._models.using(work.model) as model:
            space = model.spaces.get(work.prompt_name)
            if space is None or space.fingerprint != work.fingerprint:
                raise FingerprintError(
                    f"the model {work.model!r} changed on this worker since the job was submitted; submit the job again"
                )
            self._embedder.compute(
                model,
                work.prompt_name,
                missing,
                lane=work.lane,
                still_wanted=self._still_wanted(work.job_id),
                label=(work.job_id, work.position),
                alone=work.attempts > 1,  # it may have killed a worker; it must not take other chunks along
                into=done,
            )

    def _still_wanted(self, job_id: str) -> Callable[[], bool]:
        checked_at = time.monotonic()

        def still_wanted() -> bool:
            nonlocal checked_at
            if time.monotonic() - checked_at < _CANCEL_CHECK_S:
                return True
            checked_at = time.monotonic()
            return self._jobs.is_active(job_id)

        return still_wanted

    def _record(self, work: ChunkWork, done: Computed, started_at: float) -> None:
        errors = dict(work.errors)
        outcomes = []
        counts: Counter[Outcome] = Counter()  # without the texts that were refused when the job was submitted
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
            if i not in work.errors:
                counts[outcome] += 1
            outcomes.append(Outcome.FAILED if i in errors else outcome)
        recorded = self._chunks.finish(
            work,
            outcomes,
            errors,
            truncated=sum(done.truncated.get(key, False) for i, key in enumerate(work.keys) if i not in work.kept),
            tokens=sum(done.tokens.get(key, 0) for i, key in enumerate(work.keys) if i not in work.kept),
        )
        if recorded:
            self._record_message(Message(work.model, work.sent_at, started_at, counts))
        else:
            log.warning("lease expired, another worker has this chunk", job=work.job_id, chunk=work.position)
