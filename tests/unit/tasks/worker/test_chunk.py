"""A chunk from its lease to its recorded outcomes, whatever goes wrong between them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from semel.cache.keys import input_keys
from semel.errors import BackendError, DeviceLostError, StorageFullError, UnavailableError
from semel.tasks.fleet.meter import Message
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.tasks.worker import chunk as chunk_module
from semel.tasks.worker.chunk import ChunkRunner
from semel.values.job import Job, JobStatus
from semel.values.text import ItemError, Lane, Outcome
from semel.values.variant import AS_DEFINED, Variant
from tests.support.computing import Device, device_on
from tests.support.fleet import OTHER, Clock, Fleet
from tests.support.values import PRODUCER, vectors

MAX_ATTEMPTS = 2

UNKNOWN = replace(OTHER, model="big")
"""A space of a model that this worker does not have."""


class Watched:
    """A chunk runner, and what it reports.

    Attributes:
        elsewhere: whether another worker can take what this one refuses.
    """

    def __init__(self, fleet: Fleet, device: Device, *, lease_s: float = 60) -> None:
        self.messages: list[Message] = []
        self.refused: list[tuple[str, bytes, str]] = []
        self.elsewhere = False
        self.runner = ChunkRunner(
            fleet.jobs,
            fleet.jobs,
            fleet.store,
            device.embedder,
            device.models,
            owner="w",
            lease_s=lease_s,
            max_attempts=MAX_ATTEMPTS,
            refuse=self._refuse,
            record=self.messages.append,
        )

    def _refuse(self, model: str, fingerprint: bytes, why: str) -> bool:
        self.refused.append((model, fingerprint, why))
        return self.elsewhere


@pytest.fixture
def watched(fleet: Fleet, device: Device) -> Watched:
    return Watched(fleet, device)


def submit(
    fleet: Fleet,
    device: Device,
    texts: list[str],
    *,
    truncate: bool = True,
    bad: dict[int, ItemError] | None = None,
    variant: Variant = AS_DEFINED,
) -> Job:
    """A job of one chunk; the texts at the positions in `bad` were refused."""
    space = device.space().with_variant(variant)
    job = fleet.jobs.add(space, lane=Lane.BULK, device="cpu", why="test", truncate=truncate)
    keys = input_keys(space.fingerprint, [text or "x" for text in texts])
    new = NewChunk(0, [NO_KEY if i in (bad or {}) else key for i, key in enumerate(keys)], list(texts), bad or {})
    fleet.jobs.add_chunks(job, [new], lookup=fleet.store.lookup_on)
    return fleet.jobs.seal(job.id)


def outcomes(fleet: Fleet, job: Job) -> list[str]:
    (chunk,) = fleet.jobs.results(job.id)
    return [outcome.value for outcome in chunk.outcomes]


def errors(fleet: Fleet, job: Job) -> dict[int, str]:
    (chunk,) = fleet.jobs.results(job.id)
    return {position: error.code for position, error in chunk.errors.items()}


def is_pending(fleet: Fleet, job: Job) -> bool:
    """Whether the chunk waits for a worker again."""
    return fleet.jobs.dispatch(lane=Lane.BULK, device="cpu", window=8) == [(job.id, 0)]


def put(fleet: Fleet, device: Device, *texts: str, truncated: bool = False) -> None:
    space, n = device.space(), len(texts)
    keys = input_keys(space.fingerprint, texts)
    fleet.store.put_many(space, keys, vectors(n, 8), tokens=[2] * n, truncated=[truncated] * n, producer=PRODUCER)


def test_a_chunk_is_computed_and_recorded(watched: Watched, fleet: Fleet, device: Device) -> None:
    job = submit(fleet, device, ["one", "two", "poison"])
    watched.runner.run([(job.id, 0)])
    done = fleet.jobs.get(job.id)
    assert (done.status, done.counts.computed, done.counts.failed) == (JobStatus.COMPLETED, 2, 1)
    assert outcomes(fleet, job) == ["computed", "computed", "failed"]
    assert [message.outcomes for message in watched.messages] == [{Outcome.COMPUTED: 2, Outcome.FAILED: 1}]
    assert watched.runner.in_hand() == []


def test_chunks_of_different_variants_are_computed_each_in_its_own(
    watched: Watched, fleet: Fleet, device: Device
) -> None:
    text, variants = "the words and the end", (AS_DEFINED, Variant(max_tokens=2), Variant(2, "left"))
    jobs = [submit(fleet, device, [text], variant=variant) for variant in variants]
    watched.runner.run([(job.id, 0) for job in jobs])
    keys = [key for variant in variants for key in input_keys(device.space().with_variant(variant).key_base, [text])]
    found = fleet.store.get_many(keys, dim=8)
    assert found.vectors is not None
    assert (found.vectors == device.model.backend.embed_texts([text, "the words", "the end"])).all()
    assert found.truncated.tolist() == [False, True, True]


def test_texts_that_are_in_the_cache_by_now_are_hits_and_not_computed(
    watched: Watched, fleet: Fleet, device: Device
) -> None:
    job = submit(fleet, device, ["early", "late"])
    put(fleet, device, "early")
    watched.runner.run([(job.id, 0)])
    assert outcomes(fleet, job) == ["hit", "computed"]
    assert device.engine.stats.texts == 1


def test_a_model_is_not_even_loaded_for_hits(watched: Watched, fleet: Fleet, device: Device) -> None:
    job = submit(fleet, device, ["one", "two"])
    put(fleet, device, "one", "two")
    watched.runner.run([(job.id, 0)])
    assert outcomes(fleet, job) == ["hit", "hit"]
    assert device.models.loaded() == []


def test_an_equal_text_is_computed_once_and_counts_as_coalesced(watched: Watched, fleet: Fleet, device: Device) -> None:
    job = submit(fleet, device, ["same", "other", "same"])
    watched.runner.run([(job.id, 0)])
    assert outcomes(fleet, job) == ["computed", "computed", "coalesced"]
    assert device.engine.stats.texts == 2


def test_a_text_without_a_key_keeps_its_place_and_its_error(watched: Watched, fleet: Fleet, device: Device) -> None:
    job = submit(fleet, device, ["first", "", "last"], bad={1: ItemError("invalid_text", "is empty")})
    watched.runner.run([(job.id, 0)])
    assert outcomes(fleet, job) == ["computed", "failed", "computed"]
    assert errors(fleet, job) == {1: "invalid_text"}
    assert watched.messages[0].outcomes == {Outcome.COMPUTED: 2}, "the worker never saw the bad text"


def test_a_text_above_the_limit_fails_when_truncation_is_refused(
    watched: Watched, fleet: Fleet, device: Device
) -> None:
    job = submit(fleet, device, ["short", "word " * 30], truncate=False)
    watched.runner.run([(job.id, 0)])
    assert errors(fleet, job) == {1: "text_too_long"}
    allowed = submit(fleet, device, ["another " * 30])
    watched.runner.run([(allowed.id, 0)])
    counts = fleet.jobs.get(allowed.id).counts
    assert (errors(fleet, allowed), counts.truncated, counts.unread) == ({}, 1, 240 // 4 - counts.tokens)


def test_a_chunk_that_is_finished_or_in_other_hands_is_left_alone(
    watched: Watched, fleet: Fleet, device: Device
) -> None:
    finished, leased = submit(fleet, device, ["finished"]), submit(fleet, device, ["leased"])
    assert fleet.jobs.lease_one(leased.id, 0, owner="another", ttl_s=60)
    for job_id in (finished.id, finished.id, leased.id, "job_unknown"):
        watched.runner.run([(job_id, 0)])
    assert len(watched.messages) == 1
    assert fleet.jobs.get(leased.id).status is JobStatus.IN_PROGRESS


def test_progress_is_visible_while_the_chunk_is_computed(watched: Watched, fleet: Fleet, device: Device) -> None:
    seen: list[list[tuple[str, int, int]]] = []
    device.on_batch = lambda: seen.append(watched.runner.progress())
    job = submit(fleet, device, [f"text {i}" for i in range(24)])
    watched.runner.run([(job.id, 0)])
    assert [place[:2] for progress in seen for place in progress] == [(job.id, 0)] * 3
    assert 0 <= seen[0][0][2] <= seen[-1][0][2] <= 16
    assert watched.runner.progress() == []


def test_a_chunk_stops_when_its_job_is_cancelled(
    watched: Watched, fleet: Fleet, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_module, "_CANCEL_CHECK_S", 0.0)
    texts = [f"text {i}" for i in range(80)]
    job = submit(fleet, device, texts)
    device.on_batch = lambda: fleet.jobs.cancel(job.id)
    watched.runner.run([(job.id, 0)])
    assert fleet.jobs.get(job.id).status is JobStatus.CANCELLED
    assert fleet.store.lookup(list(device.missing(*texts))).present.sum() == 8, "the batch that was done is kept"
    assert watched.messages == []


def test_a_job_for_other_weights_than_this_workers_fails(watched: Watched, fleet: Fleet, device: Device) -> None:
    other = fleet.submit(space=OTHER)
    watched.runner.run([(other.id, 0)])
    failed = fleet.jobs.get(other.id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "fingerprint_mismatch"
    assert "'m' changed on this worker" in failed.error.message


@pytest.mark.parametrize("trouble", [StorageFullError("here"), UnavailableError("the database does not answer")])
def test_chunks_wait_while_the_database_cannot_store_them_and_no_attempt_is_charged(
    watched: Watched,
    fleet: Fleet,
    device: Device,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Exception,
) -> None:
    monkeypatch.setattr(chunk_module, "time", clock)
    monkeypatch.setattr("semel.tasks.worker.embed._PATIENCE_S", 0.0)
    job = submit(fleet, device, ["one"])
    with monkeypatch.context() as patch:
        patch.setattr(fleet.store, "put_many", Mock(side_effect=trouble))
        for _ in range(2 * MAX_ATTEMPTS):
            watched.runner.run([(job.id, 0)])
    assert is_pending(fleet, job)
    assert fleet.jobs.get(job.id).why == f"waits: {trouble}"
    assert clock.slept == [5.0] * 2 * MAX_ATTEMPTS
    watched.runner.run([(job.id, 0)])
    done = fleet.jobs.get(job.id)
    assert (done.status, done.counts.computed, done.counts.failed) == (JobStatus.COMPLETED, 1, 0)


def test_a_model_that_is_unknown_here_is_refused_and_the_chunk_goes_to_another_worker(
    watched: Watched, fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_module, "time", clock)
    watched.elsewhere = True
    job = fleet.submit(space=UNKNOWN)
    watched.runner.run([(job.id, 0)])
    assert [(model, fingerprint) for model, fingerprint, _ in watched.refused] == [("big", UNKNOWN.fingerprint)]
    assert clock.slept == [0.5], "another worker of this queue should take it first"
    assert is_pending(fleet, job)


def test_without_another_worker_the_chunk_is_tried_again_and_then_fails(watched: Watched, fleet: Fleet) -> None:
    job = fleet.submit(space=UNKNOWN)
    watched.runner.run([(job.id, 0)])
    assert is_pending(fleet, job)
    watched.runner.run([(job.id, 0)])
    assert errors(fleet, job) == {0: "model_not_found"}
    assert fleet.jobs.get(job.id).status is JobStatus.COMPLETED


@pytest.fixture
def dying(fleet: Fleet, tmp_path: Path) -> Iterator[Device]:
    """A device that is lost with its first batch after loading."""
    with device_on(fleet.store, tmp_path / "dying", "fake:?dim=8&dead_after=1") as made:
        yield made


def test_a_lost_device_returns_the_chunk_and_reports_the_loss(fleet: Fleet, dying: Device) -> None:
    watched = Watched(fleet, dying)
    job = submit(fleet, dying, ["one"])
    with pytest.raises(BackendError):
        watched.runner.run([(job.id, 0)])
    assert is_pending(fleet, job)


@pytest.mark.parametrize(("elsewhere", "attempts"), [(False, MAX_ATTEMPTS), (True, 2 * MAX_ATTEMPTS)])
def test_a_chunk_that_may_kill_devices_fails_in_the_end(
    fleet: Fleet, dying: Device, elsewhere: bool, attempts: int
) -> None:
    watched = Watched(fleet, dying)
    watched.elsewhere = elsewhere
    job = submit(fleet, dying, ["one", "two"])
    for _ in range(attempts):
        assert fleet.jobs.get(job.id).status is JobStatus.IN_PROGRESS
        with pytest.raises(BackendError):
            watched.runner.run([(job.id, 0)])
    assert errors(fleet, job) == dict.fromkeys(range(2), DeviceLostError.code)


def test_an_unforeseen_error_ends_the_chunk_and_not_the_worker(
    watched: Watched, fleet: Fleet, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(fleet.store, "lookup", fail)
    job = submit(fleet, device, ["one"])
    for _ in range(MAX_ATTEMPTS):
        watched.runner.run([(job.id, 0)])
    assert errors(fleet, job) == {0: "internal_error"}


def test_a_chunk_that_is_tried_again_shares_no_batch(
    watched: Watched, fleet: Fleet, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[tuple[object, object]] = []
    submit_to_engine = device.engine.submit

    def spy(*args: Any, **options: Any) -> Any:
        submitted.append((options["label"], options["alone"]))
        return submit_to_engine(*args, **options)

    monkeypatch.setattr(device.engine, "submit", spy)
    first, again = submit(fleet, device, ["first"]), submit(fleet, device, ["again"])
    work = fleet.jobs.lease_one(again.id, 0, owner="died", ttl_s=60)
    assert work is not None
    fleet.jobs.give_back([work])
    for job in (first, again):
        watched.runner.run([(job.id, 0)])
    assert submitted == [(frozenset({(first.id, 0)}), False), (frozenset({(again.id, 0)}), True)]


def test_a_chunk_whose_lease_expired_is_recorded_by_its_new_holder_only(fleet: Fleet, device: Device) -> None:
    watched = Watched(fleet, device, lease_s=0.0)
    job = submit(fleet, device, ["one"])

    def lose_the_lease() -> None:
        work = fleet.jobs.lease_one(job.id, 0, owner="another", ttl_s=60)
        assert work is not None
        assert fleet.jobs.finish_one(work, [Outcome.COALESCED], {}, truncated=0, tokens=1)

    device.on_batch = lose_the_lease
    watched.runner.run([(job.id, 0)])
    assert outcomes(fleet, job) == ["coalesced"]
    assert watched.messages == []
