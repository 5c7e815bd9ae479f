"""A text that ends every worker which computes it: only this text fails."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.rows import NewChunk
from semel.values.job import Job, JobStatus
from semel.values.text import Lane
from tests.support.computing import Device, KilledError, chunk_runner, device_on
from tests.support.jobs import Jobs

MAX_ATTEMPTS = 3


@pytest.fixture
def device(store: VectorStore, tmp_path: Path) -> Iterator[Device]:
    with device_on(store, tmp_path, "fake:?dim=8&fail_on=poison", max_batch_tokens=4096) as made:
        yield made


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=600, retention_s=600)


def submit(jobs: Jobs, store: VectorStore, device: Device, *chunks: Sequence[str]) -> Job:
    space = device.space()
    job = jobs.add(space, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    first = 0
    for texts in chunks:
        chunk = NewChunk(first, input_keys(space.fingerprint, texts), list(texts))
        jobs.add_chunks(job, [chunk], lookup=store.lookup_on)
        first += len(texts)
    return jobs.seal(job.id)


def run_to_the_end(jobs: Jobs, store: VectorStore, device: Device, job: Job) -> int:
    """Run a job with workers that die; returns how many died."""
    died = 0
    for _ in range(40):
        places = jobs.dispatch(lane=Lane.BULK, device="cpu", window=8)
        if not places and jobs.get(job.id).status is JobStatus.COMPLETED:
            return died
        for place in places:
            try:
                chunk_runner(jobs, store, device, owner=f"w{died}", lease_s=-1, max_attempts=MAX_ATTEMPTS).run([place])
            except KilledError:
                died += 1
        jobs.sweep(empty_queues=[], resend_after_s=0, max_attempts=MAX_ATTEMPTS)
    raise AssertionError("work is left")


@pytest.fixture
def killing(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The worker dies when one of the killers reaches the engine; the texts of each submission are recorded."""
    submitted: list[list[str]] = []
    submit_to_engine = device.engine.submit

    def submit(backend: Any, texts: Sequence[str], **options: Any) -> Any:
        submitted.append(list(texts))
        if any("killer" in text for text in texts):
            raise KilledError
        return submit_to_engine(backend, texts, **options)

    monkeypatch.setattr(device.engine, "submit", submit)
    return submitted


def failed(jobs: Jobs, job: Job) -> dict[int, str]:
    """The position of each text that failed, and its code."""
    return {result.first_index + i: error.code for result in jobs.results(job.id) for i, error in result.errors.items()}


def test_only_the_killer_fails(jobs: Jobs, store: VectorStore, device: Device, killing: list[list[str]]) -> None:
    texts = [f"text {i}" for i in range(20)]
    texts[3], texts[7] = "a poison text", "a killer"  # the other text that never gets a vector comes first
    job = submit(jobs, store, device, texts, ["other", "chunk"])
    assert run_to_the_end(jobs, store, device, job) == 4, "among all, in a slice, and twice alone"
    assert failed(jobs, job) == {3: "backend_error", 7: "worker_lost"}
    counts = jobs.get(job.id).counts
    assert (counts.done, counts.failed) == (22, 2)


def test_several_killers_fail_and_nobody_else(
    jobs: Jobs, store: VectorStore, device: Device, killing: list[list[str]]
) -> None:
    texts = ["killer 1", "a", "killer 2", "b", "killer 1", "c", "killer 3"]
    job = submit(jobs, store, device, texts)
    assert run_to_the_end(jobs, store, device, job) == 1 + 3 * (1 + 2)
    assert failed(jobs, job) == dict.fromkeys([0, 2, 4, 6], "worker_lost")


def test_a_text_that_dies_with_its_worker_once_is_computed_by_the_next(
    jobs: Jobs, store: VectorStore, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit_to_engine, accidents = device.engine.submit, iter([True, True])

    def submit_with_accidents(*args: Any, **options: Any) -> Any:
        if next(accidents, False):
            raise KilledError
        return submit_to_engine(*args, **options)

    monkeypatch.setattr(device.engine, "submit", submit_with_accidents)
    job = submit(jobs, store, device, ["a", "b", "c"])
    assert run_to_the_end(jobs, store, device, job) == 2
    assert failed(jobs, job) == {}


def test_a_chunk_that_kills_before_a_text_is_computed_fails_only_what_is_not_cached(
    jobs: Jobs, store: VectorStore, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store, device, ["cached", "new"])
    with device.models.using("m") as model:
        device.embedder.compute(model, "", device.missing("cached"), lane=Lane.BULK)

    def dies(_name: str) -> None:
        raise KilledError

    monkeypatch.setattr(device.models, "using", dies)
    assert run_to_the_end(jobs, store, device, job) == MAX_ATTEMPTS
    assert failed(jobs, job) == {1: "worker_lost"}


def test_a_chunk_that_only_waited_in_workers_that_died_is_not_charged(
    jobs: Jobs, store: VectorStore, device: Device
) -> None:
    job = submit(jobs, store, device, ["a", "b"])
    for attempt in range(4 * MAX_ATTEMPTS):
        assert jobs.lease_one(job.id, 0, owner=f"w{attempt}", ttl_s=-1) is not None
        jobs.sweep(empty_queues=[], resend_after_s=0, max_attempts=MAX_ATTEMPTS)
    assert run_to_the_end(jobs, store, device, job) == 0
    assert failed(jobs, job) == {}


def test_a_worker_that_stops_for_another_reason_leaves_no_suspicion(
    jobs: Jobs, store: VectorStore, device: Device
) -> None:
    job = submit(jobs, store, device, ["a"])
    for starts in (1, 1, 1):
        work = jobs.lease_one(job.id, 0, owner="w", ttl_s=60)
        assert work is not None
        assert jobs.start_alone(work, range(1)) == starts
        jobs.give_back_uncharged([(job.id, 0)], owner="w")
