"""What failover promises, on SQLite and on PostgreSQL, with a real Redis."""

from dataclasses import replace

import pytest
import redis

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.fleet import failover as failover_module
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.failover import Failover
from semel.tasks.fleet.roster import Roster
from semel.tasks.jobs.moves import JobMoves
from semel.tasks.jobs.rows import NewChunk
from semel.values.job import IfNoWorker, Job, JobStatus
from semel.values.text import Lane
from tests.support.jobs import Jobs
from tests.support.values import space

SPACE, OTHER = space(), space(weights="w2")


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=60, retention_s=60)


@pytest.fixture
def roster(redis_client: "redis.Redis") -> Roster:
    return Roster(redis_client)


@pytest.fixture
def failover(db: Database, jobs: Jobs, roster: Roster, monkeypatch: pytest.MonkeyPatch) -> Failover:
    monkeypatch.setattr(failover_module, "GRACE_S", 0.0)
    return Failover(jobs, JobMoves(db), roster, use_case="auto", fail_after_s=0)


def worker(roster: Roster, device: str, *spaces: bytes, model: str = "m") -> WorkerCard:
    card = WorkerCard(
        id=f"{device}@host", device=device, host="host", pid=1, started_at=0.0, models=[model],
        spaces=[fingerprint.hex() for fingerprint in spaces],
    )  # fmt: skip
    roster.beat(card)
    return card


def submit(jobs: Jobs, store: VectorStore, *, if_no_worker: IfNoWorker = "wait", chunks: int = 3) -> Job:
    job = jobs.add(SPACE, lane=Lane.BULK, device="mlx", why="requested", truncate=True, if_no_worker=if_no_worker)
    texts = [f"text {i}" for i in range(chunks)]
    new = [NewChunk(i, input_keys(SPACE.fingerprint, [text]), [text]) for i, text in enumerate(texts)]
    jobs.add_chunks(job, new, lookup=store.lookup_on)
    return jobs.seal(job.id)


def test_jobs_of_a_lost_pool_move_to_a_pool_with_the_same_space(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    assert len(jobs.dispatch(lane=Lane.BULK, device="mlx", window=2)) == 2  # sent, and lost with the pool
    worker(roster, "vulkan:0", OTHER.fingerprint)
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    moved = jobs.get(job.id)
    assert moved.device == "cpu"
    assert "no live worker on mlx any more; cpu serves the same vector space" in moved.why
    assert len(jobs.dispatch(lane=Lane.BULK, device="cpu", window=8)) == 3
    assert jobs.dispatch(lane=Lane.BULK, device="mlx", window=8) == []


def test_jobs_under_another_name_of_the_model_move_separately(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    named = submit(jobs, store)
    alias = jobs.add(replace(SPACE, model="alias"), lane=Lane.BULK, device="mlx", why="requested", truncate=True)
    worker(roster, "mlx", SPACE.fingerprint, model="alias")
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    assert jobs.get(named.id).device == "cpu"
    assert jobs.get(alias.id).device == "mlx"  # its worker is alive, and no worker on cpu serves that name


def test_the_remaining_chunks_go_back_when_the_pool_returns(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    assert jobs.get(job.id).device == "cpu"
    jobs.dispatch(lane=Lane.BULK, device="cpu", window=1)
    worker(roster, "mlx", SPACE.fingerprint)
    failover.run()
    back = jobs.get(job.id)
    assert (back.device, back.why) == ("mlx", "mlx: it serves this vector space again")
    assert len(jobs.dispatch(lane=Lane.BULK, device="mlx", window=8)) == 3


def test_a_live_pool_keeps_its_jobs(failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster) -> None:
    job = submit(jobs, store)
    worker(roster, "mlx", SPACE.fingerprint)
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    assert jobs.get(job.id) == job


def test_the_preferred_one_of_several_pools_takes_over(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    for device in ("cpu", "vulkan:0", "mps"):
        worker(roster, device, SPACE.fingerprint)
    failover.run()
    assert jobs.get(job.id).device == "vulkan"


def test_a_job_does_not_move_to_another_space_but_waits_and_records_why(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    worker(roster, "cpu", OTHER.fingerprint, model="m@cpu")
    failover.run()
    failover.run()
    waiting = jobs.get(job.id)
    assert (waiting.status, waiting.device) == (JobStatus.IN_PROGRESS, "mlx")
    assert waiting.why == (
        "mlx: no live worker serves this vector space of m; cpu serves m@cpu, which is another space "
        "and is not mixed with it; the job waits for one"
    )
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    assert jobs.get(job.id).device == "cpu"


def test_a_job_that_must_not_wait_fails_with_the_reason(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job, patient = submit(jobs, store, if_no_worker="fail"), submit(jobs, store)
    worker(roster, "cpu", OTHER.fingerprint, model="m@cpu")
    failover.run()
    failed = jobs.get(job.id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "service_unavailable"
    assert "cpu serves m@cpu, which is another space" in failed.error.message
    assert jobs.get(patient.id).status is JobStatus.IN_PROGRESS


def test_a_pool_counts_as_gone_only_after_the_grace_period(
    db: Database, jobs: Jobs, store: VectorStore, roster: Roster, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store)
    worker(roster, "cpu", SPACE.fingerprint)
    now = [1000.0]
    monkeypatch.setattr(failover_module.time, "monotonic", lambda: now[0])
    patient = Failover(jobs, JobMoves(db), roster, use_case="auto", fail_after_s=60)
    patient.run()
    now[0] += failover_module.GRACE_S / 2
    patient.run()
    assert jobs.get(job.id).device == "mlx"  # Redis may just have been emptied
    worker(roster, "mlx", SPACE.fingerprint)
    patient.run()
    roster.leave("mlx@host")
    now[0] += failover_module.GRACE_S / 2
    patient.run()
    assert jobs.get(job.id).device == "mlx"  # it was back in between, so the grace period starts again
    now[0] += failover_module.GRACE_S
    patient.run()
    assert jobs.get(job.id).device == "cpu"


def test_a_pool_that_cannot_load_the_model_hands_its_jobs_over_at_once(
    db: Database, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    failover = Failover(jobs, JobMoves(db), roster, use_case="auto", fail_after_s=60)
    gone = worker(roster, "mlx", SPACE.fingerprint)
    assert not failover.leave("mlx", gone.id, "m", SPACE.fingerprint, why="it does not fit")
    assert failover.leave("mlx", "another", "m", SPACE.fingerprint, why="it does not fit")
    assert jobs.get(job.id).device == "mlx"  # a worker of the same pool serves it
    worker(roster, "cpu", SPACE.fingerprint)
    assert failover.leave("mlx", gone.id, "m", SPACE.fingerprint, why="it does not fit")
    assert jobs.get(job.id).device == "cpu"
    assert "mlx cannot serve it: it does not fit; cpu serves the same vector space" in jobs.get(job.id).why


def test_a_pool_that_serves_the_weights_under_another_name_does_not_take_over(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    worker(roster, "cpu", SPACE.fingerprint, model="another")
    failover.run()
    assert jobs.get(job.id).device == "mlx"


def test_a_pool_that_is_still_loading_gets_no_jobs_back(
    failover: Failover, jobs: Jobs, store: VectorStore, roster: Roster
) -> None:
    job = submit(jobs, store)
    worker(roster, "cpu", SPACE.fingerprint)
    failover.run()
    roster.beat(replace(worker(roster, "mlx", SPACE.fingerprint), state="loading"))
    failover.run()
    assert jobs.get(job.id).device == "cpu"
