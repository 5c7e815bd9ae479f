"""/v1/jobs in this process."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import update

from semel.api.jobs.wire import JobObject
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.schema import chunks as chunk_rows
from tests.support.answers import message_of
from tests.support.service import Service
from tests.support.workers import no_worker, paused, send_again

NDJSON = {"content-type": "application/x-ndjson"}


def submit(api: Service, *texts: Any, **options: Any) -> JobObject:
    answer = api.http.post("/v1/jobs", json={"input": list(texts), **options})
    assert answer.status_code == 202, answer.text
    return JobObject.model_validate(answer.json())


def get(api: Service, job: JobObject | str, part: str = "", **params: Any) -> Any:
    job_id = job if isinstance(job, str) else job.id
    return api.http.get(f"/v1/jobs/{job_id}{part}", params=params)


def post(api: Service, job: JobObject, verb: str) -> Any:
    return api.http.post(f"/v1/jobs/{job.id}/{verb}")


# Submit


def test_a_job_runs_from_submission_to_results(api: Service) -> None:
    job = submit(api, "a job of", "two texts", metadata={"who": "test"})
    done = get(api, job).json()
    assert (done["status"], done["counts"]["computed"], done["metadata"]) == ("completed", 2, {"who": "test"})
    assert (done["model"], done["dimensions"], done["device"]) == ("fake", 16, "cpu")
    assert len(get(api, job, "/results").text.splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"input": ["one", {"id": 7, "text": "two"}]}', "application/json"),
        (b'{"text": "one"}\n{"text": "two"}\n', "application/x-ndjson"),
        (b"text,n\none,1\ntwo,2\n", "text/csv"),
    ],
)
def test_a_body_may_have_several_forms(api: Service, content: bytes, kind: str) -> None:
    answer = api.http.post("/v1/jobs", content=content, headers={"content-type": kind})
    assert answer.status_code == 202, answer.text
    assert get(api, answer.json()["id"]).json()["counts"]["done"] == 2


def test_a_form_with_a_file_and_options_is_a_job(api: Service) -> None:
    fields = {"model": "prompted", "prompt_name": "query", "metadata": '{"file": "a.txt"}'}
    answer = api.http.post("/v1/jobs", data=fields, files={"file": ("a.txt", b"one\ntwo\n")})
    job = JobObject.model_validate(answer.json())
    assert (job.model, job.prompt_name, job.metadata) == ("prompted", "query", {"file": "a.txt"})
    assert get(api, job).json()["counts"]["done"] == 2


def test_the_rows_of_a_cross_encoder_are_pairs(api: Service) -> None:
    job = submit(api, {"query": "a b", "document": "b"}, {"query": "a", "document": "c"}, model="reranker")
    lines = [json.loads(line) for line in get(api, job, "/results").text.splitlines()]
    assert [line["score"] for line in lines] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": []}, 400, "input is an empty list"),
        ({}, 400, "input: "),
        ({"input": ["a"], "model": "nope"}, 404, "no model named 'nope'"),
        ({"input": ["a"], "device": "abacus"}, 400, "unknown device 'abacus'"),
        ({"input": ["a"], "colour": "red"}, 400, "colour: "),
        ({"input": ["a"], "metadata": {"n": 3}}, 400, "metadata.n: "),
        ({"input": [{"id": 1}]}, 400, 'input[0]: "text" is missing; each row must be {"text": "…"}'),
        ({"input": ["a", {"id": 1}], "strict": True}, 400, 'input[1]: "text" is missing'),
        ({"input": ["a", ""], "strict": True}, 400, "text 1 is empty"),
        ({"input": ["a"], "strict": "perhaps"}, 400, "strict: "),
        ({"input": ["a"], "webhook_url": "ftp://x"}, 400, "webhook"),
        ({"input": ["a"], "input_type": "query", "prompt_name": "query"}, 400, "only one of them"),
    ],
)
def test_a_job_that_cannot_be_used_is_refused(api: Service, body: dict[str, Any], status: int, message: str) -> None:
    before = api.http.get("/v1/jobs").json()
    answer = api.http.post("/v1/jobs", json=body)
    assert answer.status_code == status
    assert message in message_of(answer)
    assert api.http.get("/v1/jobs").json() == before, "it leaves no job"


def test_a_row_without_its_text_fails_in_its_place(api: Service) -> None:
    job = submit(api, "a good row", {"id": 7, "body": "x"}, "another good row")
    lines = [json.loads(line) for line in get(api, job, "/results").text.splitlines()]
    assert [line["outcome"] for line in lines] == ["computed", "failed", "computed"]
    assert (lines[1]["id"], lines[1]["metadata"]) == (7, {"body": "x"})
    assert lines[1]["error"]["message"].startswith('input[1]: "text" is missing')


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, "document"),
        ({"input_type": "query"}, "query"),
        ({"input_type": "none"}, ""),
        ({"prompt_name": "query"}, "query"),
    ],
)
def test_texts_are_documents_unless_the_job_says_otherwise(api: Service, options: dict[str, str], prompt: str) -> None:
    job = submit(api, "of some kind", model="prompted", **options)
    (line,) = get(api, job, "/results").text.splitlines()
    asked = {"prompt_name": prompt} if prompt else {}
    direct = api.http.post("/v1/embeddings", json={"input": "of some kind", "model": "prompted", **asked}).json()
    assert json.loads(line)["embedding"] == direct["data"][0]["embedding"]


@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/jobs/estimate"])
def test_an_unknown_parameter_is_named_with_the_known_ones(api: Service, route: str) -> None:
    answer = api.http.post(route, params={"colour": "red"}, json={"input": ["a"]})
    assert answer.status_code == 400
    assert "unknown query parameter 'colour' (known: device, " in message_of(answer)


def test_a_job_for_which_no_worker_lives_waits_for_one(api: Service) -> None:
    with no_worker(api), paused(api):
        job = submit(api, "waits for a worker")
    assert (job.status, "waits" in job.why or "no live worker" in job.why) == ("in_progress", True)


# Idempotency


def test_the_same_key_and_body_is_the_same_job(api: Service) -> None:
    def repeated(*texts: str, key: str = "night-1") -> Any:
        return api.http.post("/v1/jobs", json={"input": list(texts)}, headers={"idempotency-key": key})

    first = repeated("a", "b")
    assert repeated("a", "b").json()["id"] == first.json()["id"]
    assert repeated("a", "b", key="night-2").json()["id"] != first.json()["id"]
    other = repeated("a")
    assert (other.status_code, "used for another body" in message_of(other)) == (409, True)


def test_a_refused_submission_frees_its_key(api: Service) -> None:
    headers = {"idempotency-key": "night-3"}
    assert api.http.post("/v1/jobs", content=b"{oops", headers=headers).status_code == 400
    assert api.http.post("/v1/jobs", json={"input": ["a"]}, headers=headers).status_code == 202


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_1_to_255_characters(api: Service, key: str) -> None:
    answer = api.http.post("/v1/jobs", json={"input": ["a"]}, headers={"idempotency-key": key})
    assert (answer.status_code, "1 to 255 characters" in message_of(answer)) == (400, True)


# Estimate


def test_an_estimate_counts_and_submits_nothing(api: Service) -> None:
    submit(api, "known to the estimate")
    jobs = api.http.get("/v1/jobs").json()
    texts = ["known to the estimate", "new to it", "new to it", ""]
    answer = api.http.post("/v1/jobs/estimate", json={"input": texts}).json()
    assert (answer["texts"], answer["distinct"], answer["cached"], answer["to_compute"]) == (4, 2, 1, 1)
    assert (answer["failed"], [row["index"] for row in answer["bad_rows"]]) == (1, [3])
    assert answer["compute_s"] == pytest.approx(answer["tokens"] / 5000)
    assert api.http.get("/v1/jobs").json() == jobs


# List and look


def test_the_list_is_filtered_and_paged(api: Service) -> None:
    ids = [submit(api, f"listed {i}", model="prompted").id for i in range(3)][::-1]
    listed = api.http.get("/v1/jobs", params={"model": "prompted", "status": "completed", "limit": 2}).json()
    assert ([job["id"] for job in listed["data"]], listed["has_more"]) == (ids[:2], True)
    rest = api.http.get("/v1/jobs", params={"model": "prompted", "after": ids[1]}).json()
    assert rest["data"][0]["id"] == ids[2]
    assert api.http.get("/v1/jobs", params={"status": "expired"}).json() == {
        "object": "list", "data": [], "has_more": False,
    }  # fmt: skip


def test_an_unknown_model_is_an_error_and_no_empty_list(api: Service) -> None:
    assert api.http.get("/v1/jobs", params={"model": "nope"}).status_code == 404


def test_texts_in_running_chunks_are_in_hand(api: Service) -> None:
    with paused(api):
        job = submit(api, *[f"in hand {i}" for i in range(2500)])
        with reported(api, job, 300):
            shown = get(api, job).json()
            (listed,) = api.http.get("/v1/jobs", params={"limit": 1}).json()["data"]
        for one in (shown, listed):
            assert (one["id"], one["in_hand"], one["counts"]["done"]) == (job.id, 300, 0)
            assert one["texts_per_s"] > 0
            assert one["eta_s"] > 0
        waiting = get(api, job).json()
        assert (waiting["in_hand"], waiting["texts_per_s"], waiting["eta_s"]) == (0, None, None)
        post(api, job, "cancel")


def test_an_ended_job_has_nothing_in_hand_and_no_rate(api: Service) -> None:
    job = submit(api, "ended")
    with reported(api, job, 1):
        done = get(api, job).json()
    assert (done["status"], done["in_hand"], done["texts_per_s"], done["eta_s"]) == ("completed", 0, None, None)


@contextmanager
def reported(api: Service, job: JobObject, done: int) -> Iterator[None]:
    """For a block, a worker reports texts that are done in the first chunk of a job, which it runs."""
    with api.services.stores.db.write() as conn:
        first = (chunk_rows.c.job_id == job.id) & (chunk_rows.c.position == 0)
        conn.execute(update(chunk_rows).where(first).values(state="running"))
    roster = api.services.watch.roster
    roster.beat(WorkerCard(id="busy", device="cpu", host="h", pid=1, started_at=0.0, progress=[(job.id, 0, done)]))
    roster.live()
    try:
        yield
    finally:
        roster.leave("busy")
        roster.live()


def test_the_chunks_of_a_job_are_listed_by_position(api: Service) -> None:
    job = submit(api, *[f"of a chunk {i}" for i in range(2500)])
    chunks = get(api, job, "/chunks", limit=2).json()
    assert ([chunk["first_index"] for chunk in chunks["data"]], chunks["has_more"]) == ([0, 1024], True)
    assert chunks["states"] == {"done": 3}
    (last,) = get(api, job, "/chunks", after=1).json()["data"]
    assert (last["position"], last["texts"], last["state"]) == (2, 452, "done")


def test_failed_texts_come_with_their_id_and_reason(api: Service) -> None:
    job = submit(api, "fine", {"id": {"a": [1]}, "text": "a poison"}, "", model="fake")
    failed = get(api, job, "/failed", limit=1).json()
    (first,) = failed["data"]
    assert (first["index"], first["id"], first["text"]) == (1, {"a": [1]}, "a poison")
    assert (first["error"]["code"], failed["has_more"]) == ("backend_error", True)
    assert [row["index"] for row in get(api, job, "/failed", after=1).json()["data"]] == [2]


def test_an_id_that_is_no_unicode_comes_back_as_it_was_sent(api: Service) -> None:
    line = json.dumps({"id": "\ud800", "text": ""}) + "\n"
    job = api.http.post("/v1/jobs", content=line.encode(), headers=NDJSON).json()
    assert json.loads(get(api, job["id"], "/failed").content)["data"][0]["id"] == "\ud800"


def test_events_of_a_finished_job_are_its_end(api: Service) -> None:
    answer = get(api, submit(api, "followed"), "/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    (block,) = answer.text.strip().split("\n\n")
    name, data = block.split("\n")
    end = json.loads(data.removeprefix("data: "))
    assert (name, end["job"]["status"], end["eta_s"]) == ("event: end", "completed", 0.0)


# Cancel, retry, delete


def test_a_job_is_cancelled_and_its_messages_do_nothing(api: Service) -> None:
    before = len(api.worker.sent)
    with paused(api):
        job = submit(api, "cancelled in time")
        assert post(api, job, "cancel").json()["status"] in ("cancelling", "cancelled")
    send_again(api, before)
    assert get(api, job).json()["counts"]["computed"] == 0
    refused = post(api, submit(api, "ended"), "cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


def test_a_retry_runs_only_what_failed(api: Service) -> None:
    job = submit(api, "retried", "poison", "")
    before = len(api.worker.sent)
    assert post(api, job, "retry").status_code == 200
    assert len(api.worker.sent) == before + 1
    again = get(api, job).json()
    assert (again["status"], again["counts"]["failed"], again["retried_at"] is not None) == ("completed", 2, True)


def test_a_retry_of_an_open_job_is_a_conflict(api: Service) -> None:
    with paused(api):
        job = submit(api, "still open")
        assert post(api, job, "retry").status_code == 409


def test_a_deleted_job_is_gone_and_its_vectors_stay(api: Service) -> None:
    job = submit(api, "deleted later")
    answer = api.http.delete(f"/v1/jobs/{job.id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert get(api, job).status_code == 404
    hit = api.http.post("/v1/embeddings", json={"input": "deleted later"})
    assert hit.headers["x-semel-cache"].startswith("hits=1")


def test_an_open_job_cannot_be_deleted(api: Service) -> None:
    with paused(api):
        job = submit(api, "open")
        assert api.http.delete(f"/v1/jobs/{job.id}").status_code == 409


@pytest.mark.parametrize(
    ("method", "part"),
    [("GET", ""), ("GET", "/chunks"), ("GET", "/failed"), ("GET", "/events"), ("GET", "/results"),
     ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")],
)  # fmt: skip
def test_an_unknown_id_is_404(api: Service, method: str, part: str) -> None:
    answer = api.http.request(method, f"/v1/jobs/job_none{part}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "there is no job 'job_none'" in message_of(answer)


@pytest.mark.parametrize("part", ["chunks", "failed"])
def test_a_place_beyond_every_job_is_refused(api: Service, part: str) -> None:
    assert get(api, "job_none", f"/{part}", after=2**62).status_code == 404
    answer = get(api, "job_none", f"/{part}", after=2**64)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "after")
