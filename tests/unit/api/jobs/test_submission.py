"""Where a job goes, when it is refused, and the one job behind an idempotency key."""

import asyncio
import base64
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from semel.api.jobs.submission import create, destination, new_job, once
from semel.api.jobs.wire import JobRequest
from semel.api.watch.metrics import ApiMetrics
from semel.errors import (
    BadInputError,
    ConflictError,
    OverloadedError,
    SemelError,
    StorageFullError,
    UnavailableError,
    UnknownDeviceError,
    UnknownModelError,
)
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.counts import JobCounts, WaitingWork
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.store import JobStore
from semel.values.job import Job, JobStatus
from semel.values.model import ModelEntry
from semel.values.text import Lane
from tests.support.parts import Parts, parts
from tests.support.service import Service

SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


def request(**options: Any) -> JobRequest:
    return JobRequest(input=[], **options)


def newest(running: Parts) -> Job:
    return running.services.stores.jobs.list_jobs(limit=1)[0]


# Where it goes


def test_a_job_goes_to_the_pool_that_serves_its_model(running: Parts) -> None:
    space, route = destination(running.services, request())
    assert (space.model, route.device, route.waits) == ("fake", "cpu", False)
    assert "1 live worker with fake" in route.why


def test_a_job_takes_the_prompt_by_its_name_or_by_the_kind_of_text(running: Parts) -> None:
    by_name, _ = destination(running.services, request(model="prompted", prompt_name="query"))
    by_kind, _ = destination(running.services, request(model="prompted", input_type="query"))
    assert by_name == by_kind
    with pytest.raises(BadInputError, match="both choose a prompt"):
        destination(running.services, request(model="prompted", prompt_name="query", input_type="query"))


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({"model": "prompted"}, "document"),
        ({"model": "prompted", "input_type": "document"}, "document"),
        ({"model": "prompted", "input_type": "none"}, ""),
        ({"model": "fake"}, ""),
        ({"model": "fake", "input_type": "query"}, ""),
    ],
)
def test_texts_without_a_kind_are_documents(running: Parts, options: Any, prompt: str) -> None:
    assert destination(running.services, request(**options))[0].prompt_name == prompt


@pytest.mark.parametrize(
    ("options", "error"),
    [({"model": "nope"}, UnknownModelError), ({"device": "gpu"}, UnknownDeviceError)],
)
def test_an_unknown_model_or_device_is_refused(running: Parts, options: Any, error: type[SemelError]) -> None:
    with pytest.raises(error):
        destination(running.services, request(**options))


def test_a_job_is_refused_while_redis_does_not_answer(running: Parts) -> None:
    before = running.services.stores.jobs.list_jobs(limit=1)
    with running.redis_gone(), pytest.raises(UnavailableError, match="Redis does not answer"):
        create(running.services, request())
    assert running.services.stores.jobs.list_jobs(limit=1) == before


def test_a_job_is_refused_while_too_much_work_waits(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = running.services.fleet
    fleet.backlog._waiting.forget()
    waits = WaitingWork(Lane.BULK, "cpu", "fake", 1000, tokens_per_text=5 * 86_401)  # at 5000 tokens/s
    monkeypatch.setattr(JobCounts, "waiting_work", lambda _self: [waits])
    with pytest.raises(OverloadedError, match="86,401 s of work wait on cpu") as refused:
        create(running.services, request())
    assert refused.value.retry_after_s == 1.0
    fleet.backlog._waiting.forget()


def test_a_version_for_one_device_does_not_run_on_another(tmp_path: Path) -> None:
    models = {"fake": ModelEntry("fake:?dim=8", source_cpu="fake:?dim=8&weights=b")}
    with parts(tmp_path, models=models) as running:
        message = "'fake@cpu' is the version of 'fake' for cpu and does not run on cuda; use model 'fake', or omit"
        with pytest.raises(BadInputError, match=message):
            destination(running.services, request(model="fake@cpu", device="cuda"))
        for device in ("auto", "cpu", "cpu:0"):
            assert destination(running.services, request(model="fake@cpu", device=device))[1].device == "cpu"


def test_a_job_waits_for_a_worker_of_its_device(running: Parts) -> None:
    job = create(running.services, request(device="cuda"))
    assert (job.device, job.status) == ("cuda", JobStatus.VALIDATING)
    assert "no live worker serves fake" in job.why


def test_a_job_keeps_what_was_asked(running: Parts) -> None:
    job = create(running.services, request(truncate=False, metadata={"a": "b"}, model="prompted"))
    assert (job.truncate, job.metadata, job.model, job.total) == (False, {"a": "b"}, "prompted", 0)


# Webhooks


def test_a_job_with_a_webhook_that_cannot_be_called_is_not_created(running: Parts) -> None:
    before = running.services.stores.jobs.list_jobs(limit=1)
    with pytest.raises(BadInputError, match="SEMEL_WEBHOOK_SECRET is not set"):
        create(running.services, request(webhook_url="https://example.org/"))
    assert running.services.stores.jobs.list_jobs(limit=1) == before


def test_a_webhook_is_kept_until_the_job_ends(tmp_path: Path) -> None:
    with parts(tmp_path, webhook_secret=SECRET, webhook_allow_private=True) as running:
        with new_job(running.services, request(webhook_url="http://127.0.0.1/hook")) as ingest:
            ingest.add("x")
            assert running.services.stores.webhooks.take_due(limit=9) == []
            job = ingest.finish()
        (due,) = running.services.stores.webhooks.take_due(limit=9)
        assert (due.job_id, due.url) == (job.id, "http://127.0.0.1/hook")


# Submissions that break off


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StorageFullError("here"), "storage_full", "is full"),
        (ClientDisconnect(), "upload_cut_off", "the client disconnected before it had sent all texts"),
        (ZeroDivisionError("by zero"), "internal_error", "ZeroDivisionError: by zero"),
    ],
)
def test_an_error_while_the_rows_arrive_ends_the_job(running: Parts, error: Exception, code: str, message: str) -> None:
    with pytest.raises(type(error)), new_job(running.services, request()):
        raise error
    job = newest(running)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == code
    assert message in job.error.message


def test_a_refused_submission_leaves_no_job(running: Parts) -> None:
    before = running.services.stores.jobs.list_jobs(limit=100)
    with pytest.raises(BadInputError, match="line 9: not JSON"), new_job(running.services, request()) as ingest:  # noqa: PT012
        ingest.add("accepted before the error")
        ingest.take(ingest._cutter.take_rest())
        assert len(running.services.stores.jobs.list_jobs(limit=100)) == len(before) + 1
        raise BadInputError("line 9: not JSON")
    assert running.services.stores.jobs.list_jobs(limit=100) == before


def test_a_refused_submission_calls_no_webhook(tmp_path: Path) -> None:
    with parts(tmp_path, webhook_secret=SECRET, webhook_allow_private=True) as running:
        asked = request(webhook_url="http://127.0.0.1/hook")
        with pytest.raises(BadInputError), new_job(running.services, asked):
            raise BadInputError("line 1: not JSON")
        assert running.services.stores.webhooks.take_due(limit=9) == []


def test_a_submission_that_must_be_good_is_refused_for_one_bad_row(running: Parts) -> None:
    before = running.services.stores.jobs.list_jobs(limit=100)
    ingests = new_job(running.services, request(strict=True))
    with pytest.raises(BadInputError, match="text 1 is empty"), ingests as ingest:  # noqa: PT012
        ingest.add("a good row")
        ingest.add("")
    assert running.services.stores.jobs.list_jobs(limit=100) == before


def test_a_job_that_was_cancelled_meanwhile_stays_cancelled(running: Parts) -> None:
    ingests = new_job(running.services, request())
    with pytest.raises(ConflictError, match="accepts no more texts"), ingests as ingest:  # noqa: PT012
        ingest.add("too late")
        running.services.stores.jobs.cancel(newest(running).id)
        ingest.finish()
    assert (newest(running).status, newest(running).error) == (JobStatus.CANCELLED, None)


def test_what_was_computed_before_an_error_stays_in_the_cache(running: Parts) -> None:
    with pytest.raises(BadInputError), new_job(running.services, request()) as ingest:  # noqa: PT012
        ingest.add("computed before the error")
        ingest.take(ingest._cutter.take_rest())
        raise BadInputError("line 2: not JSON")
    space = running.services.stores.catalog.space("fake")
    assert running.services.pipeline.embed(space, ["computed before the error"]).outcomes == ["hit"]


# Idempotency keys


def submit(api: Service, key: str, *texts: str, **params: Any) -> Any:
    return api.http.post("/v1/jobs", json={"input": texts}, headers={"idempotency-key": key}, params=params)


def test_the_same_key_and_body_give_the_same_job(api: Service) -> None:
    first = submit(api, "night-1", "once")
    assert first.status_code == 202
    assert submit(api, "night-1", "once").json()["id"] == first.json()["id"]
    assert submit(api, "night-2", "once").json()["id"] != first.json()["id"]


def test_a_key_stands_for_its_body_and_its_options(api: Service) -> None:
    submit(api, "night-3", "once")
    for again in (submit(api, "night-3", "another"), submit(api, "night-3", "once", model="prompted")):
        assert again.status_code == 409
        assert "'night-3' was used for another body; choose a new key" in again.json()["error"]["message"]


@pytest.mark.parametrize("length", [0, 256])
def test_a_key_has_1_to_255_characters(api: Service, length: int) -> None:
    refused = submit(api, "k" * length, "once")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == f"Idempotency-Key must have 1 to 255 characters, not {length}"
    assert submit(api, "k" * 255, "once").status_code == 202


def test_a_refused_submission_frees_its_key(api: Service) -> None:
    assert submit(api, "night-4").status_code == 400
    assert submit(api, "night-4", "now with a text").status_code == 202


def test_a_deleted_job_frees_its_key(api: Service) -> None:
    first = submit(api, "night-5", "once").json()["id"]
    assert api.http.delete(f"/v1/jobs/{first}").status_code == 204
    assert submit(api, "night-5", "another body").json()["id"] != first


@pytest.mark.parametrize("count", [1, 3000])
def test_an_error_after_a_job_was_stored_does_not_free_its_key(
    api: Service, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    texts = [f"text {i} of {count} before an error" for i in range(count)]
    seal = JobStore.seal

    def seal_and_fail(*arguments: Any) -> Job:
        seal(*arguments)
        raise RuntimeError("right after the commit")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "seal", seal_and_fail)
        if count == 1:
            patch.setattr(ApiMetrics, "ingested", lambda *_: 1 / 0)
        assert submit(api, f"failed after {count}", *texts).status_code == 500
    stored = api.http.get("/v1/jobs").json()["data"][0]
    again = submit(api, f"failed after {count}", *texts)
    newest_now = api.http.get("/v1/jobs").json()["data"][0]
    assert (again.status_code, again.json()["id"], newest_now["id"]) == (202, stored["id"], stored["id"])
    assert stored["counts"]["total"] == count


class Body:
    """Stands for a hashed body whose bytes never differ."""

    digest = b"d"

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b""


def test_a_submission_under_the_key_of_one_that_is_under_way_is_refused(running: Parts) -> None:
    async def second_while_first(_: AsyncIterable[bytes], _reservation: Reservation) -> Job:
        with pytest.raises(ConflictError, match="is under way"):
            await once(running.services, "k", Body(), second_while_first)  # type: ignore[arg-type]
        return create(running.services, request())

    job = asyncio.run(once(running.services, "k", Body(), second_while_first))  # type: ignore[arg-type]
    assert newest(running).id == job.id


def test_a_client_that_goes_away_frees_its_key(running: Parts) -> None:
    async def cancelled(_: AsyncIterable[bytes], _reservation: Reservation) -> Job:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(once(running.services, "gone", Body(), cancelled))  # type: ignore[arg-type]
    again = running.services.stores.idempotency.reserve("gone", owner="next", digest=lambda: b"d")
    assert isinstance(again, Reservation)


def test_a_pool_that_serves_other_weights_is_not_taken(running: Parts) -> None:
    other = WorkerCard(id="other", device="cuda:0", host="h", pid=1, started_at=0, models=["fake"], spaces=["00"])
    running.publish(other)
    _, route = destination(running.services, request())
    assert route.device == "cpu"
    running.services.fleet.roster.leave("other")
