"""When jobs move to another device pool, when they move back, and when they stay."""

from dataclasses import replace

import pytest

from semel.errors import UnavailableError
from semel.tasks.fleet import failover as failover_module
from semel.tasks.fleet.failover import GRACE_S, Failover
from semel.tasks.jobs.moves import JobMoves
from semel.values.job import Job, JobStatus
from semel.values.text import Lane
from tests.support.fleet import OTHER, SPACE, Clock, Fleet

FAIL_AFTER_S = 60.0


@pytest.fixture
def failover(fleet: Fleet, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Failover:
    """A failover whose clock the test moves."""
    monkeypatch.setattr(failover_module, "time", clock)
    return Failover(fleet.jobs, JobMoves(fleet.db), fleet.roster, use_case="auto", fail_after_s=FAIL_AFTER_S)


def run_after(failover: Failover, clock: Clock, *pauses_s: float) -> None:
    """A run now, and one after each pause."""
    failover.run()
    for pause_s in pauses_s:
        clock.now += pause_s
        failover.run()


def device(fleet: Fleet, job: Job) -> str:
    return fleet.jobs.get(job.id).device


def test_jobs_move_after_the_grace_period_and_not_before(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S - 0.1)
    assert device(fleet, job) == "mlx"
    run_after(failover, clock, 0.2)
    assert device(fleet, job) == "cpu"


def test_a_worker_that_returns_within_the_grace_period_keeps_its_jobs(
    failover: Failover, fleet: Fleet, clock: Clock
) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S / 2)
    worker = fleet.join("mlx", SPACE)
    run_after(failover, clock)
    fleet.leave(worker)
    run_after(failover, clock, GRACE_S / 2, GRACE_S / 4)
    assert device(fleet, job) == "mlx", "the grace period begins again"


def test_the_preferred_pool_gets_the_jobs_and_the_job_shows_why(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    for name in ("cpu", "cuda:1"):
        fleet.join(name, SPACE)
    run_after(failover, clock, GRACE_S)
    moved = fleet.jobs.get(job.id)
    assert moved.device == "cuda"
    assert "no live worker on mlx any more" in moved.why


def test_only_the_jobs_of_the_lost_pool_move(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    lost, kept = fleet.submit("lost", device="mlx"), fleet.submit("kept", device="cuda")
    done = fleet.submit("done", device="mlx")
    fleet.jobs.cancel(done.id)
    for name in ("cpu", "cuda:0"):
        fleet.join(name, SPACE)
    run_after(failover, clock, GRACE_S)
    assert [device(fleet, job) for job in (lost, kept, done)] == ["cuda", "cuda", "mlx"]


def test_a_chunk_in_the_lost_queue_is_sent_again_in_the_new_one(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx", chunks=2)
    assert len(fleet.jobs.dispatch(lane=Lane.BULK, device="mlx", window=1)) == 1
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S)
    taken = fleet.jobs.dispatch(lane=Lane.BULK, device="cpu", window=8)
    assert taken == [(job.id, 0), (job.id, 1)]


def test_jobs_never_move_to_another_space(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", replace(OTHER, model="m@cpu"))
    run_after(failover, clock, GRACE_S)
    waiting = fleet.jobs.get(job.id)
    assert (waiting.device, waiting.status) == ("mlx", JobStatus.IN_PROGRESS)
    assert "cpu serves m@cpu, which is another space" in waiting.why
    assert waiting.why.endswith("the job waits for one")


def test_the_reason_names_only_builds_of_the_same_model(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", replace(OTHER, model="unrelated"))
    run_after(failover, clock, GRACE_S)
    assert "unrelated" not in fleet.jobs.get(job.id).why


def test_a_job_that_must_not_wait_fails_when_its_time_is_over(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    hasty, patient = fleet.submit("hasty", device="mlx", if_no_worker="fail"), fleet.submit("patient", device="mlx")
    run_after(failover, clock, GRACE_S, FAIL_AFTER_S - GRACE_S - 0.1)
    assert fleet.jobs.get(hasty.id).status is JobStatus.IN_PROGRESS
    run_after(failover, clock, 0.2)
    failed = fleet.jobs.get(hasty.id)
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == UnavailableError.code
    assert 'if_no_worker "fail"' in failed.error.message
    assert fleet.jobs.get(patient.id).status is JobStatus.IN_PROGRESS


def test_jobs_return_when_their_first_pool_has_been_ready_for_a_while(
    failover: Failover, fleet: Fleet, clock: Clock
) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S)
    fleet.join("mlx", SPACE)
    run_after(failover, clock, GRACE_S - 0.1)
    assert device(fleet, job) == "cpu", "a pool that dies again would take the jobs with it"
    run_after(failover, clock, 0.2)
    assert device(fleet, job) == "mlx"


def test_a_job_that_began_on_the_other_pool_does_not_follow(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    moved, native = fleet.submit("moved", device="mlx"), fleet.submit("native", device="cpu")
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S)
    fleet.join("mlx", SPACE)
    run_after(failover, clock, GRACE_S)
    assert [device(fleet, job) for job in (moved, native)] == ["mlx", "cpu"]


def test_jobs_do_not_return_to_a_pool_that_is_still_loading(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    fleet.join("cpu", SPACE)
    run_after(failover, clock, GRACE_S)
    fleet.join("mlx", SPACE, state="loading")
    run_after(failover, clock, GRACE_S, GRACE_S)
    assert device(fleet, job) == "cpu"


def test_without_redis_nothing_moves(failover: Failover, fleet: Fleet, clock: Clock) -> None:
    job = fleet.submit(device="mlx")
    fleet.server.connected = False
    for _ in range(2):
        with pytest.raises(UnavailableError):
            failover.run()
        clock.now += GRACE_S
    assert fleet.jobs.get(job.id) == job


def test_a_worker_that_cannot_serve_a_model_hands_its_jobs_over_at_once(failover: Failover, fleet: Fleet) -> None:
    job = fleet.submit(device="mlx")
    worker = fleet.join("mlx", SPACE)
    fleet.join("cpu", SPACE)
    assert failover.leave("mlx", worker.id, "m", SPACE.fingerprint, why="no memory")
    moved = fleet.jobs.get(job.id)
    assert moved.device == "cpu"
    assert "no memory" in moved.why


def test_the_jobs_stay_when_another_worker_of_the_same_kind_serves_them(failover: Failover, fleet: Fleet) -> None:
    job = fleet.submit(device="cuda")
    worker = fleet.join("cuda:0", SPACE)
    fleet.join("cuda:1", SPACE)
    fleet.join("cpu", SPACE)
    assert failover.leave("cuda:0", worker.id, "m", SPACE.fingerprint, why="no memory")
    assert fleet.jobs.get(job.id) == job


def test_a_worker_that_is_alone_keeps_its_jobs(failover: Failover, fleet: Fleet) -> None:
    job = fleet.submit(device="mlx")
    worker = fleet.join("mlx", SPACE)
    fleet.join("cpu", OTHER)
    assert not failover.leave("mlx", worker.id, "m", SPACE.fingerprint, why="no memory")
    assert fleet.jobs.get(job.id) == job


def test_others_are_the_workers_of_that_space_and_name_except_oneself(failover: Failover, fleet: Fleet) -> None:
    fleet.join("cpu", SPACE)
    mps = fleet.join("mps", SPACE)
    fleet.join("cuda:0", OTHER)
    fleet.join("vulkan:0", replace(SPACE, model="alias"))
    assert failover.others("cpu@host", "m", SPACE.fingerprint) == [mps]
