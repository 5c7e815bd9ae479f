"""What happens to a chunk whose model or device fails as a whole."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.error_codes import is_fault_of_the_text
from semel.errors import BackendError, DeviceLostError, ModelLoadError, SemelError
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.tasks.worker.chunk import ChunkRunner
from semel.values.job import JobStatus
from semel.values.text import ItemError, Lane, Outcome
from tests.support.jobs import Jobs
from tests.support.values import put, space, vectors

SPACE = space()
TEXTS = ["one", "two", "one"]


class FailingModels:
    """Stands in for the models; none of them can be used."""

    def __init__(self, error: SemelError, meanwhile: Callable[[], None]) -> None:
        self._error = error
        self._meanwhile = meanwhile

    @contextmanager
    def using(self, name: str) -> Iterator[object]:
        self._meanwhile()
        raise self._error
        yield name


def runner(
    jobs: Jobs,
    store: VectorStore,
    error: SemelError,
    messages: list[Message],
    *,
    meanwhile: Callable[[], None] = lambda: None,
    lease_s: float = 60,
) -> ChunkRunner:
    return ChunkRunner(
        jobs,
        jobs,
        store,
        None,  # type: ignore[arg-type]  # never used
        FailingModels(error, meanwhile),  # type: ignore[arg-type]
        owner="w",
        lease_s=lease_s,
        max_attempts=1,
        refuse=lambda *_: False,
        record=messages.append,
    )


@pytest.mark.parametrize(
    ("error", "code"), [(ModelLoadError("no files"), ModelLoadError.code), (BackendError("lost"), DeviceLostError.code)]
)
def test_every_text_fails_and_is_counted_but_is_not_at_fault(
    db: Database, store: VectorStore, error: SemelError, code: str
) -> None:
    jobs = Jobs(db, window_s=60, retention_s=60)
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    jobs.add_chunks(job, [NewChunk(0, input_keys(SPACE.fingerprint, TEXTS), list(TEXTS))], lookup=store.lookup_on)
    jobs.seal(job.id)
    messages: list[Message] = []
    lost = pytest.raises(BackendError, match="lost") if isinstance(error, BackendError) else nullcontext()
    with lost:
        runner(jobs, store, error, messages).run([(job.id, 0)])
    done = jobs.get(job.id)
    assert (done.status, done.counts.failed) == (JobStatus.COMPLETED, 3)
    assert [message.outcomes for message in messages] == [{Outcome.FAILED: 3}]
    (chunk,) = jobs.results(job.id)
    assert {failed.code for failed in chunk.errors.values()} == {code}
    assert not is_fault_of_the_text(code)


def test_a_refused_text_is_not_counted_as_a_failure_of_the_worker(db: Database, store: VectorStore) -> None:
    jobs = Jobs(db, window_s=60, retention_s=60)
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    keys = [*input_keys(SPACE.fingerprint, ["there", "there"]), NO_KEY]
    new = NewChunk(0, keys, ["there", "there", ""], {2: ItemError("invalid_text", "is empty")})
    jobs.add_chunks(job, [new], lookup=store.lookup_on)
    jobs.seal(job.id)
    put(store, ["there"], vectors(1))  # since the job was submitted
    messages: list[Message] = []
    runner(jobs, store, BackendError("not used"), messages).run([(job.id, 0)])
    assert jobs.get(job.id).counts.failed == 1
    assert [message.outcomes for message in messages] == [{Outcome.HIT: 2}]


def test_a_worker_may_hold_a_chunk_twice_after_its_lease_expired(db: Database, store: VectorStore) -> None:
    jobs = Jobs(db, window_s=60, retention_s=60)
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    jobs.add_chunks(job, [NewChunk(0, input_keys(SPACE.fingerprint, TEXTS), list(TEXTS))], lookup=store.lookup_on)
    jobs.seal(job.id)
    held: list[list[tuple[str, int]]] = []

    def again() -> None:
        held.append(twice.in_hand())
        if len(held) == 1:
            time.sleep(0.05)
            twice.run([(job.id, 0)])
            held.append(twice.in_hand())

    twice = runner(jobs, store, ModelLoadError("no files"), [], meanwhile=again, lease_s=0.01)
    twice.run([(job.id, 0)])
    assert held == [
        [(job.id, 0)],
        [(job.id, 0)],
        [],
    ]  # the second run ended first, so its lease is not renewed any more
    assert twice.in_hand() == []
    assert jobs.get(job.id).status is JobStatus.COMPLETED
