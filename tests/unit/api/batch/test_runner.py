"""A batch from its upload to its files, step by step, whatever stops it on the way."""

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from semel.api.batch import runner as module
from semel.api.batch.lines import Line, LineRequest, request_of
from semel.api.batch.runner import BatchRunner
from semel.errors import OverloadedError, UnavailableError
from semel.tasks.jobs.batches import Batch
from semel.tasks.jobs.schema import batches as batch_rows
from semel.tasks.jobs.schema import jobs as job_rows
from semel.values.job import JobStatus
from semel.values.text import ItemError
from tests.support.batches import line, new_batch, records
from tests.support.parts import Parts


@pytest.fixture
def runner(running: Parts) -> BatchRunner:
    """A runner that takes a step when a test says so; batches of other tests are out of its way."""
    with running.services.stores.db.write() as conn:
        conn.execute(batch_rows.delete())
    return BatchRunner(running.services)


@pytest.fixture(autouse=True)
def worker_runs(running: Parts) -> None:
    running.worker.paused = False


def state(running: Parts, batch: Batch) -> Batch:
    return running.services.stores.batches.get(batch.id)


def finished(running: Parts, runner: BatchRunner, lines: list[Any], endpoint: str = "/v1/embeddings") -> Batch:
    batch = new_batch(running, lines, endpoint)
    for _ in range(5):
        runner._once()
    return state(running, batch)


def job_ids(running: Parts) -> set[str]:
    with running.services.stores.db.read() as conn:
        return set(conn.execute(select(job_rows.c.id)).scalars())


def lose_lease(running: Parts) -> None:
    """Another process takes every batch over."""
    with running.services.stores.db.write() as conn:
        conn.execute(update(batch_rows).values(lease_owner="another", lease_until=time.time() + 60))


def expire(running: Parts) -> None:
    with running.services.stores.db.write() as conn:
        conn.execute(update(batch_rows).values(expires_at=time.time() - 1))


# From start to end


def test_a_batch_is_submitted_then_written(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="step by step"), line("b", input=["two", "inputs"])])
    runner._once()
    submitted = state(running, batch)
    assert (submitted.status, submitted.model, submitted.total, submitted.inputs) == (
        JobStatus.IN_PROGRESS,
        "fake",
        2,
        3,
    )
    (job_id,) = submitted.jobs
    assert running.services.stores.jobs.get(job_id).metadata == {"origin": "batch", "batch": batch.id}
    runner._once()
    done = state(running, batch)
    assert (done.status, done.completed, done.failed, done.error_file_id) == (JobStatus.COMPLETED, 2, 0, None)
    assert list(records(running, done.output_file_id)) == ["a", "b"]
    assert (done.input_tokens, done.cached_tokens) == (5, 0)


def test_a_batch_without_failures_has_no_error_file(running: Parts, runner: BatchRunner) -> None:
    done = finished(running, runner, [line("a", input="fine"), line("b", input="")])
    assert (done.completed, done.failed) == (1, 1)
    assert set(records(running, done.error_file_id)) == {"b"}
    stored = running.services.stores.files.get(done.error_file_id or "")
    assert (stored.purpose, stored.filename) == ("batch_output", f"{done.id}_error.jsonl")


def test_lines_of_one_model_with_several_prompts_are_several_jobs(running: Parts, runner: BatchRunner) -> None:
    lines = [
        line("a", "/v1/rerank", model="prompted", query="q", documents=["d", "e"]),
        line("b", "/v1/rerank", model="prompted", query="r", documents=["d"]),
    ]
    done = finished(running, runner, lines, "/v1/rerank")
    assert done.status is JobStatus.COMPLETED
    jobs = [running.services.stores.jobs.get(job_id) for job_id in done.jobs]
    assert {(job.prompt_name, job.total) for job in jobs} == {("query", 2), ("document", 3)}


def test_a_batch_of_bad_requests_only_completes_without_a_job(running: Parts, runner: BatchRunner) -> None:
    done = finished(running, runner, [line("a", input=""), line("b", input=[1])])
    assert (done.status, done.jobs, done.failed, done.output_file_id) == (JobStatus.COMPLETED, (), 2, None)


def test_lines_without_a_model_take_the_default(running: Parts, runner: BatchRunner) -> None:
    done = finished(running, runner, [{**line("a"), "body": {"input": "by default"}}])
    assert (done.status, done.model) == (JobStatus.COMPLETED, "fake")


def test_progress_is_counted_in_lines_while_the_jobs_run(running: Parts, runner: BatchRunner) -> None:
    running.worker.paused = True
    batch = new_batch(running, [line(str(i), input=[f"{i} a", f"{i} b"]) for i in range(4)])
    runner._once()
    runner._once()
    assert (state(running, batch).completed, state(running, batch).status) == (0, JobStatus.IN_PROGRESS)
    with running.services.stores.db.write() as conn:
        counts = {"computed": 5, "failed": 2}
        conn.execute(update(job_rows).where(job_rows.c.id == state(running, batch).jobs[0]).values(counts))
    runner._once()
    assert (state(running, batch).completed, state(running, batch).failed) == (2, 1)
    with running.services.stores.db.write() as conn:
        conn.execute(update(job_rows).values(computed=0, failed=0))
    running.run_waiting()
    runner._once()
    assert (state(running, batch).completed, state(running, batch).failed) == (4, 0)


# Files that are refused


def errors(batch: Batch) -> list[tuple[str, int | None]]:
    assert batch.status is JobStatus.FAILED
    return [(error.code, error.line) for error in batch.errors]


def test_every_unsound_line_is_named_before_any_work(running: Parts, runner: BatchRunner) -> None:
    before = job_ids(running)
    lines: list[Any] = [
        line("a", input="x"),
        b"{not json",
        line("a", input="the same id"),
        {**line("b", input="x"), "method": "GET"},
        line("c", "/v1/rerank", input="x"),
        line("d", input="x", model="prompted"),
    ]
    assert errors(finished(running, runner, lines)) == [
        ("invalid_json_line", 2),
        ("duplicate_custom_id", 3),
        ("invalid_method", 4),
        ("mismatched_url", 5),
        ("mismatched_model", 6),
    ]
    assert job_ids(running) == before


def test_conflicts_with_earlier_lines_say_which_value(running: Parts, runner: BatchRunner) -> None:
    failed = finished(running, runner, [line("a", input="x"), line("a", input="x", model="prompted")])
    assert [error.message for error in failed.errors] == [
        "line 2: custom_id 'a' is already used in an earlier line",
        "line 2: body.model is 'prompted', but earlier lines use 'fake'; a batch has one model",
    ]


def test_at_most_a_hundred_errors_are_reported(running: Parts, runner: BatchRunner) -> None:
    assert len(errors(finished(running, runner, [b"no JSON"] * 300))) == 100


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], [("empty_file", None)]),
        ([b"", b"  "], [("empty_file", None)]),
        ([line("a", model="nope", input="x")], [("model_not_found", 1)]),
    ],
)
def test_a_batch_that_cannot_start_says_why(running: Parts, runner: BatchRunner, lines: Any, expected: Any) -> None:
    assert errors(finished(running, runner, lines)) == expected


@pytest.fixture
def narrow(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = running.services.settings.model_copy(update={"max_batch_lines": 3, "max_body_bytes": 200})
    monkeypatch.setitem(vars(running.services), "settings", settings)


@pytest.mark.usefixtures("narrow")
def test_a_file_has_a_limit_in_lines_and_each_line_one_in_bytes(running: Parts, runner: BatchRunner) -> None:
    assert finished(running, runner, [line(str(i), input="x") for i in range(3)]).status is JobStatus.COMPLETED
    assert errors(finished(running, runner, [line(str(i), input="x") for i in range(4)])) == [("too_many_lines", None)]
    assert errors(finished(running, runner, [line("a", input="x"), b"x" * 300])) == [("line_too_long", 2)]


# Ends before the end


def test_a_cancelled_batch_writes_what_is_done(running: Parts, runner: BatchRunner) -> None:
    finished(running, runner, [line("known", input="done before")])
    running.worker.paused = True
    texts = ["done before"] * 1024 + ["not done"]
    batch = new_batch(running, [line(str(i), input=text) for i, text in enumerate(texts)])
    runner._once()
    running.services.stores.batches.cancel(batch.id)
    runner._once()
    done = state(running, batch)
    assert (done.status, done.completed, done.failed) == (JobStatus.CANCELLED, 1024, 1)
    assert records(running, done.error_file_id)["1024"]["error"]["code"] == "batch_cancelled"
    assert running.services.stores.jobs.get(done.jobs[0]).status is JobStatus.CANCELLED


def test_a_batch_that_is_cancelled_before_it_starts_writes_nothing(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="cancelled at once")])
    running.services.stores.batches.cancel(batch.id)
    runner._once()
    done = state(running, batch)
    assert (done.status, done.output_file_id, done.error_file_id) == (JobStatus.CANCELLED, None, None)


def test_a_batch_that_is_cancelled_while_it_is_submitted_cancels_its_jobs(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.worker.paused = True
    batch = new_batch(running, [line("a", input="cancelled during the submission")])
    start = running.services.stores.batches.start

    def cancelled_just_before(*args: Any, **options: Any) -> bool:
        running.services.stores.batches.cancel(batch.id)
        return start(*args, **options)

    monkeypatch.setattr(running.services.stores.batches, "start", cancelled_just_before)
    before = job_ids(running)
    runner._once()
    (job_id,) = job_ids(running) - before
    assert running.services.stores.jobs.get(job_id).status is JobStatus.CANCELLED
    runner._once()
    assert state(running, batch).status is JobStatus.CANCELLED


def test_a_late_batch_expires_with_what_is_done(running: Parts, runner: BatchRunner) -> None:
    finished(running, runner, [line("known", input="in time")])
    running.worker.paused = True
    texts = ["in time"] * 1024 + ["too late"]
    batch = new_batch(running, [line(str(i), input=text) for i, text in enumerate(texts)])
    runner._once()
    expire(running)
    runner._once()
    done = state(running, batch)
    assert (done.status, done.completed) == (JobStatus.EXPIRED, 1024)
    error = records(running, done.error_file_id)["1024"]["error"]
    assert error["code"] == "batch_expired"
    assert error["message"] == "the completion window of the batch ended before this request was done"


def test_a_batch_that_is_late_and_complete_is_completed(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="late and complete")])
    runner._once()
    expire(running)
    runner._once()
    assert state(running, batch).status is JobStatus.COMPLETED


def test_a_batch_that_is_late_before_it_starts_expires_without_files(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="never started")], window_s=-1)
    runner._once()
    assert (state(running, batch).status, state(running, batch).jobs) == (JobStatus.EXPIRED, ())


def test_lines_of_a_deleted_job_are_reported_as_not_done(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="whose job was deleted")])
    runner._once()
    running.services.stores.jobs.delete(state(running, batch).jobs[0])
    runner._once()
    done = state(running, batch)
    assert (done.status, done.failed) == (JobStatus.COMPLETED, 1)
    assert records(running, done.error_file_id)["a"]["error"]["code"] == "job_lost"


def test_lines_of_a_failed_job_carry_its_error(running: Parts, runner: BatchRunner) -> None:
    running.worker.paused = True
    batch = new_batch(running, [line("a", input="whose job failed")])
    runner._once()
    running.services.stores.jobs.fail(state(running, batch).jobs[0], ItemError("storage_full", "no room"))
    runner._once()
    error = records(running, state(running, batch).error_file_id)["a"]["error"]
    assert error == {"code": "storage_full", "message": "no room"}


# Outages, and processes that die


def test_an_outage_pauses_a_batch_and_leaves_no_job_behind(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, before = new_batch(running, [line("a", input="during an outage")]), job_ids(running)

    def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(running.services.stores.jobs, "seal", away)
    runner._once()
    monkeypatch.undo()
    assert state(running, batch).status is JobStatus.VALIDATING
    assert job_ids(running) == before
    assert runner._paused[batch.id] == pytest.approx(time.monotonic() + 5.0, abs=3)
    runner._once()
    assert state(running, batch).status is JobStatus.VALIDATING, "it waits"
    runner._paused.clear()
    runner._once()
    runner._once()
    assert state(running, batch).status is JobStatus.COMPLETED


def test_an_overload_pauses_a_batch_for_as_long_as_it_says(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any) -> None:
        raise OverloadedError("too much waits", retry_after_s=300)

    batch = new_batch(running, [line("a", input="comes again")])
    monkeypatch.setattr(running.services.fleet.backlog, "check", too_much)
    runner._once()
    assert runner._paused[batch.id] == pytest.approx(time.monotonic() + 300, abs=30)
    assert state(running, batch).status is JobStatus.VALIDATING


def test_a_batch_that_waits_does_not_hold_up_the_others(running: Parts, runner: BatchRunner) -> None:
    waits, runs = new_batch(running, [line("a", input="waits")]), new_batch(running, [line("a", input="runs")])
    runner._paused[waits.id] = time.monotonic() + 60
    runner._once()
    runner._once()
    assert state(running, waits).status is JobStatus.VALIDATING
    assert state(running, runs).status is JobStatus.COMPLETED


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ZeroDivisionError("by zero"), "internal_error", "ZeroDivisionError: by zero"),
        (module.ConflictError("the prompts changed"), "conflict", "the prompts changed"),
    ],
)
def test_another_error_fails_one_batch_and_no_thread(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str, message: str
) -> None:
    batch = new_batch(running, [line("a", input="meets an error")])
    runner._once()

    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module.OutputWriter, "write", broken)
    runner._once()
    (failed,) = state(running, batch).errors
    assert (state(running, batch).status, failed.code, failed.message) == (JobStatus.FAILED, code, message)
    monkeypatch.undo()
    assert finished(running, runner, [line("a", input="the next batch")]).status is JobStatus.COMPLETED


def test_a_batch_that_another_process_took_over_is_left_alone(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RENEWAL_S", -1.0)
    batch, before = new_batch(running, [line("a", input="taken over")]), job_ids(running)
    leased = running.services.stores.batches.lease(owner=runner._owner)
    lose_lease(running)
    with pytest.raises(module._StoppedError):
        runner._advance(leased[0])
    assert state(running, batch).status is JobStatus.VALIDATING
    assert job_ids(running) == before


def test_files_of_a_batch_that_was_taken_over_are_deleted(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = new_batch(running, [line("a", input="written twice")])
    runner._once()
    end, before = running.services.stores.batches.end, len(running.services.stores.files.list_files(limit=100))

    def too_late(*args: Any, **options: Any) -> bool:
        lose_lease(running)
        return end(*args, **options)

    monkeypatch.setattr(running.services.stores.batches, "end", too_late)
    runner._once()
    assert state(running, batch).status is JobStatus.FINALIZING
    assert len(running.services.stores.files.list_files(limit=100)) == before


def test_another_runner_goes_on_where_one_died(running: Parts, runner: BatchRunner) -> None:
    batch = new_batch(running, [line("a", input="survives its process")])
    runner._once()
    with running.services.stores.db.write() as conn:
        conn.execute(update(batch_rows).values(lease_until=0.0))
    BatchRunner(running.services)._once()
    assert state(running, batch).status is JobStatus.COMPLETED


def test_weights_that_change_during_a_submission_are_not_mixed(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line("a", input="old weights"), line("b", input="new weights")]
    batch, before = new_batch(running, lines), job_ids(running)

    def exchanged(services: Any, endpoint: str, sent: Line) -> LineRequest:
        request = request_of(services, endpoint, sent)
        if sent.custom_id == "a":
            return request
        ((space, text),) = request.inputs
        newer = replace(space, spec_json=json.dumps({**json.loads(space.spec_json), "weights": "new"}))
        return replace(request, inputs=[(newer, text)])

    monkeypatch.setattr(module, "request_of", exchanged)
    runner._once()
    assert (state(running, batch).status, job_ids(running)) == (JobStatus.VALIDATING, before)
    assert batch.id in runner._paused


# The thread


def test_a_runner_starts_and_gives_its_leases_back(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, done = new_batch(running, [line("a", input="by the thread")]), threading.Event()
    write = module.OutputWriter.write

    def written(*args: Any, **options: Any) -> Any:
        done.set()
        return write(*args, **options)

    monkeypatch.setattr(module.OutputWriter, "write", written)
    monkeypatch.setattr(runner._poll, "_pause_s", 0.0)
    monkeypatch.setattr(runner._poll, "_every_s", 0.01)
    left = new_batch(running, [line("a", input="left for the next process")])
    runner._paused[left.id] = time.monotonic() + 60
    runner.start()
    assert done.wait(10)
    runner.stop()
    assert state(running, batch).status is JobStatus.COMPLETED
    assert [found.id for found in running.services.stores.batches.lease(owner="next")] == [left.id]


def test_a_stop_without_a_database_does_not_fail(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(**_: Any) -> None:
        raise UnavailableError("the database does not answer")

    monkeypatch.setattr(running.services.stores.batches, "give_back", away)
    runner.start()
    runner.stop()


def test_a_step_sweeps_the_files_once_a_minute(
    running: Parts, runner: BatchRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps: list[int] = []
    monkeypatch.setattr(running.services.stores.files, "sweep", lambda: sweeps.append(1))
    monkeypatch.setattr(module, "time", Clock())
    for _ in range(4):
        runner._once()
    assert len(sweeps) == 2


class Clock:
    """Goes on by 25 seconds with each look at it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 25
        return self.now

    def time(self) -> float:
        return time.time()
