"""Batches that are cancelled, expire, or meet an outage; and processes that die."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from semel.api.batch import runner as module
from semel.api.batch.lines import Line, LineRequest, request_of
from semel.api.batch.runner import BatchRunner
from semel.errors import OverloadedError, UnavailableError
from semel.tasks.jobs.schema import batches as batch_rows
from semel.values.job import JobStatus
from semel.values.text import ItemError
from tests.support.batches import expire, finished, job_ids, line, lose_lease, new_batch, records, state
from tests.support.parts import Parts

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
