"""A batch from its upload to its files, step by step, whatever stops it on the way."""

import threading
import time
from typing import Any

import pytest
from sqlalchemy import update

from semel.api.batch import runner as module
from semel.api.batch.runner import BatchRunner
from semel.errors import UnavailableError
from semel.tasks.jobs.batches import Batch
from semel.tasks.jobs.schema import jobs as job_rows
from semel.values.job import JobStatus
from tests.support.batches import finished, job_ids, line, new_batch, records, state
from tests.support.parts import Parts

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
