"""Jobs that move to another kind of device, and jobs that no worker serves."""

from contextlib import contextmanager

import pytest

from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.moves import JobGroup, JobMoves
from semel.tasks.jobs.schema import jobs as job_table
from semel.values.job import JobStatus
from semel.values.text import Lane
from tests.support.job_rows import BROKEN, SPACE, create, finish, job_row, lease, states, submit
from tests.support.jobs import Jobs
from tests.support.values import space

OTHER = space(weights="w2")


@pytest.fixture
def moves(db: Database) -> JobMoves:
    return JobMoves(db)


def group(device: str = "mlx", fingerprint: bytes = SPACE.fingerprint) -> JobGroup:
    return JobGroup(device, "m", fingerprint)


def test_active_jobs_of_one_model_space_and_device_are_one_group(
    jobs: Jobs, store: VectorStore, moves: JobMoves
) -> None:
    submit(jobs, store, "a", device="mlx")
    create(jobs, device="mlx")
    submit(jobs, store, "b", device="cpu")
    create(jobs, device="mlx", into=OTHER)
    jobs.fail(submit(jobs, store, "c", device="cuda").id, BROKEN)
    assert sorted(moves.active(), key=str) == sorted(
        [(group("mlx"), "mlx"), (group("cpu"), "cpu"), (group("mlx", OTHER.fingerprint), "mlx")], key=str
    )


def test_a_moved_job_remembers_the_device_that_it_was_first_sent_to(jobs: Jobs, moves: JobMoves) -> None:
    create(jobs, device="mlx")
    assert moves.move(group("mlx"), "cpu", "mlx is gone") == 1
    assert moves.active() == [(group("cpu"), "mlx")]


def test_a_job_without_a_first_device_counts_as_sent_to_its_own(jobs: Jobs, moves: JobMoves, db: Database) -> None:
    create(jobs, device="mlx")
    with db.write() as conn:  # as in a database from before that column
        conn.execute(job_table.update().values(first_device=None))
    assert moves.active() == [(group("mlx"), "mlx")]


def test_a_move_takes_the_chunks_that_no_worker_holds(
    jobs: Jobs, store: VectorStore, moves: JobMoves, db: Database
) -> None:
    job = submit(jobs, store, *"abcd", device="mlx", waits=True)
    jobs.dispatch(lane=Lane.BULK, device="mlx", window=3)
    finish(jobs, lease(jobs, job, 0))
    lease(jobs, job, 1)
    assert moves.move(group("mlx"), "cpu", "mlx is gone") == 1
    assert states(db, job) == ["done", "running", "pending", "pending"]
    row = job_row(db, job)
    assert (row.device, row.why, row.waits) == ("cpu", "mlx is gone", False)
    assert jobs.dispatch(lane=Lane.BULK, device="cpu", window=9) == [(job.id, 2), (job.id, 3)]


def test_a_running_chunk_of_a_moved_job_may_be_finished(jobs: Jobs, store: VectorStore, moves: JobMoves) -> None:
    job = submit(jobs, store, "a", device="mlx")
    work = lease(jobs, job)
    moves.move(group("mlx"), "cpu", "mlx is gone")
    assert finish(jobs, work)
    assert jobs.get(job.id).status is JobStatus.COMPLETED


def test_a_move_leaves_other_groups_alone(jobs: Jobs, store: VectorStore, moves: JobMoves) -> None:
    other_space = create(jobs, device="mlx", into=OTHER)
    other_device = create(jobs, device="cuda")
    ended = submit(jobs, store, "a", device="mlx")
    jobs.fail(ended.id, BROKEN)
    assert moves.move(group("mlx"), "cpu", "mlx is gone") == 0
    assert [jobs.get(job.id).device for job in (other_space, other_device, ended)] == ["mlx", "cuda", "mlx"]


def test_repeating_a_move_changes_nothing(jobs: Jobs, store: VectorStore, moves: JobMoves, db: Database) -> None:
    job = submit(jobs, store, "a", device="mlx")
    moves.move(group("mlx"), "cpu", "mlx is gone")
    jobs.dispatch(lane=Lane.BULK, device="cpu", window=1)
    assert moves.move(group("mlx"), "cpu", "another reason") == 0
    assert (jobs.get(job.id).why, states(db, job)) == ("mlx is gone", ["sent"])


def test_only_the_jobs_that_came_from_a_device_move_back_to_it(jobs: Jobs, moves: JobMoves) -> None:
    moved = create(jobs, device="mlx")
    own = create(jobs, device="cpu")
    moves.move(group("mlx"), "cpu", "mlx is gone")
    assert moves.move(group("cpu"), "mlx", "mlx is back", first="mlx") == 1
    assert (jobs.get(moved.id).device, jobs.get(own.id).device) == ("mlx", "cpu")


def test_a_group_that_no_worker_serves_waits_with_the_reason(jobs: Jobs, moves: JobMoves, db: Database) -> None:
    job, other = create(jobs, device="mlx"), create(jobs, device="cpu")
    moves.wait(group("mlx"), "no worker serves it")
    assert (job_row(db, job).waits, job_row(db, job).why) == (True, "no worker serves it")
    assert not job_row(db, other).waits


def test_a_wait_is_written_once_and_again_for_another_reason(
    jobs: Jobs, moves: JobMoves, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create(jobs, device="mlx")
    writes: list[bool] = []
    write = db.write

    @contextmanager
    def counted(**options: bool):  # type: ignore[no-untyped-def]
        writes.append(True)
        with write(**options) as conn:
            yield conn

    monkeypatch.setattr(db, "write", counted)
    moves.wait(group("mlx"), "no worker serves it")
    moves.wait(group("mlx"), "no worker serves it")
    assert len(writes) == 1
    moves.wait(group("mlx"), "another reason")
    assert len(writes) == 2
    assert jobs.get(job.id).why == "another reason"


def test_the_jobs_that_must_not_wait_are_named(jobs: Jobs, store: VectorStore, moves: JobMoves) -> None:
    create(jobs, device="mlx")
    fails = create(jobs, device="mlx", if_no_worker="fail")
    create(jobs, device="cpu", if_no_worker="fail")
    ended = create(jobs, device="mlx", if_no_worker="fail")
    jobs.fail(ended.id, BROKEN)
    assert moves.failing(group("mlx")) == [fails.id]
