"""Files and batches, with the real openai client against a running server."""

import json
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import Batch

from semel.errors import ConflictError, NotFoundError
from tests.support.processes import Processes, processes, wait_until


@pytest.fixture
def client(semel: Processes) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{semel.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def line(custom_id: str, url: str = "/v1/embeddings", **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "fake", **body}}


def upload(client: openai.OpenAI, lines: list[Any]) -> str:
    content = "\n".join(text if isinstance(text, str) else json.dumps(text) for text in lines)
    return client.files.create(file=("requests.jsonl", content.encode()), purpose="batch").id


def run(client: openai.OpenAI, lines: list[Any], endpoint: Any = "/v1/embeddings", **options: Any) -> Batch:
    batch = client.batches.create(
        input_file_id=upload(client, lines), endpoint=endpoint, completion_window="24h", **options
    )
    assert batch.status == "validating"
    return ended(client, batch.id)


def ended(client: openai.OpenAI, batch_id: str, timeout_s: float = 60) -> Batch:
    found: list[Batch] = []

    def has_ended() -> bool:
        found.append(client.batches.retrieve(batch_id))
        return found[-1].status in ("completed", "failed", "expired", "cancelled")

    wait_until(has_ended, timeout_s=timeout_s)
    return found[-1]


def read(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    records = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    return {record["custom_id"]: record for record in records}


# Files


def test_a_file_comes_back_as_it_was(client: openai.OpenAI) -> None:
    content = bytes(range(256)) * 1000
    stored = client.files.create(
        file=("näme.jsonl", content), purpose="batch", expires_after={"anchor": "created_at", "seconds": 7200}
    )
    assert (stored.bytes, stored.filename, stored.purpose, stored.object) == (256_000, "näme.jsonl", "batch", "file")
    assert stored.expires_at == stored.created_at + 7200
    assert client.files.retrieve(stored.id) == stored
    assert client.files.content(stored.id).read() == content
    assert client.files.delete(stored.id).deleted
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="there is no file"):
            call(stored.id)


def test_files_are_listed_page_by_page(client: openai.OpenAI) -> None:
    ids = [upload(client, [line("a", input="x")]) for _ in range(5)]
    newest_first = [stored.id for stored in client.files.list(limit=2)]
    assert newest_first[:5] == ids[::-1], "the client follows the pages to the end"
    oldest_first = [stored.id for stored in client.files.list(limit=3, order="asc", purpose="batch")]
    assert oldest_first[-5:] == ids
    assert list(client.files.list(purpose="vision")) == []


@pytest.mark.parametrize(
    ("data", "files", "message"),
    [
        ({"purpose": "batch"}, {}, "the form has no file"),
        ({"purpose": "fine-tune"}, {"file": b"x"}, "purpose must be 'batch'"),
        ({"purpose": "batch", "expires_after[anchor]": "now"}, {"file": b"x"}, "must be 'created_at'"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            {"file": b"x"},
            "3600 to 2592000",
        ),
    ],
)
def test_an_invalid_upload_is_refused(
    semel: Processes, data: dict[str, str], files: dict[str, bytes], message: str
) -> None:
    answer = httpx.post(f"{semel.url}/v1/files", data=data, files=files or {"other": b"x"})
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_an_upload_that_is_not_a_form_is_refused(semel: Processes) -> None:
    for headers in ({}, {"content-type": "multipart/form-data"}, {"content-type": "multipart/form-data; boundary=x"}):
        answer = httpx.post(f"{semel.url}/v1/files", content=b"{}", headers=headers)
        assert answer.status_code == 400, headers
        assert "multipart/form-data" in answer.json()["error"]["message"]


# Batches


def test_a_batch_gives_each_line_its_vectors(semel: Processes, client: openai.OpenAI) -> None:
    texts = [f"batched {i % 70}" for i in range(200)]
    lines = [line(f"id-{i}", input=text) for i, text in enumerate(texts)]
    lines.append(line("several", input=["one of them", "another of them"], encoding_format="base64"))
    done = run(client, lines, metadata={"of": "a test"}, extra_body={"output_expires_after": None})
    assert done.status == "completed", done
    assert done.metadata == {"of": "a test"}
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (201, 201, 0)
    assert done.error_file_id is None
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at, done.expires_at]
    assert times == sorted(at for at in times if at)
    assert done.failed_at is None
    answers = read(client, done.output_file_id)
    assert list(answers) == [one["custom_id"] for one in lines], "in the order of the input"
    vectors = semel.client.embed(texts, model="fake")
    for i, vector in enumerate(vectors):
        response = answers[f"id-{i}"]["response"]
        assert (response["status_code"], answers[f"id-{i}"]["error"]) == (200, None)
        np.testing.assert_array_equal(np.array(response["body"]["data"][0]["embedding"], np.float32), vector)
        assert response["body"]["usage"]["prompt_tokens"] == 2
    several = answers["several"]["response"]["body"]["data"]
    assert [item["index"] for item in several] == [0, 1]
    assert isinstance(several[0]["embedding"], str)


def test_cached_tokens_are_those_of_hits(client: openai.OpenAI) -> None:
    semel_tokens = [line(str(i), input=f"never seen {i} before") for i in range(10)]
    first = run(client, semel_tokens)
    again = run(client, [*semel_tokens, line("new", input="one more")])
    assert first.usage is not None
    assert again.usage is not None
    assert (first.usage.input_tokens, first.usage.input_tokens_details.cached_tokens) == (40, 0)
    assert (again.usage.input_tokens, again.usage.input_tokens_details.cached_tokens) == (42, 40)


def test_a_bad_line_does_not_fail_the_others(client: openai.OpenAI) -> None:
    lines = [
        line("good", input="a good one"),
        line("empty", input=""),
        line("tokens", input=[1, 2, 3]),
        line("none"),
        line("size", input="x", dimensions=7),
        line("device", input="has poison in it"),
        line("long", input=" ".join(["word"] * 30), truncate=False),
        line("last", input=["good", "too"]),
    ]
    done = run(client, lines)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 6)
    assert set(read(client, done.output_file_id)) == {"good", "last"}
    errors = read(client, done.error_file_id)
    messages = {name: record["response"]["body"]["error"]["message"] for name, record in errors.items()}
    assert {record["response"]["status_code"] for record in errors.values()} == {400}
    assert "is empty" in messages["empty"]
    assert "token ids" in messages["tokens"]
    assert "input" in messages["none"]
    assert "cut to 7 dimensions" in messages["size"]
    assert "fails on" in messages["device"]
    assert "longer than the model reads" in messages["long"]


@pytest.mark.parametrize("given", [["fine", ""], ["fine", "has poison in it"], [" ".join(["word"] * 30)]])
def test_a_line_fails_as_the_route_does(semel: Processes, client: openai.OpenAI, given: list[str]) -> None:
    body = {"model": "fake", "input": given, "truncate": False}
    route = httpx.post(f"{semel.url}/v1/embeddings", json=body)
    answer = read(client, run(client, [line("x", **body)]).error_file_id)["x"]["response"]
    assert (answer["status_code"], answer["body"]) == (route.status_code, route.json())
    assert answer["body"]["error"]["param"] == f"input[{len(given) - 1}]"


def test_a_line_uses_the_default_model_and_a_lone_surrogate_fails_one_line(
    semel: Processes, client: openai.OpenAI
) -> None:
    envelope = {"method": "POST", "url": "/v1/embeddings"}
    lines = [{"custom_id": "none", **envelope, "body": {"input": "a text"}}, line("half", input="\ud83d")]
    done = run(client, lines)
    answer = read(client, done.output_file_id)["none"]["response"]["body"]
    assert answer["model"] == "fake"
    assert np.array_equal(np.array(answer["data"][0]["embedding"], np.float32), semel.client.embed(["a text"])[0])
    assert "lone surrogate" in read(client, done.error_file_id)["half"]["response"]["body"]["error"]["message"]


def test_an_invalid_file_fails_with_line_numbers_before_any_work(semel: Processes, client: openai.OpenAI) -> None:
    before = len(semel.client.jobs(limit=100))
    lines = [
        line("a", input="x"),
        "{not json",
        line("a", input="the same id"),
        {**line("b", input="x"), "method": "GET"},
        line("c", url="/v1/rerank", input="x"),
        {**line("d", input="x"), "custom_id": 7},
        line("e", input="x", model="prompted"),
        {"custom_id": "f", "method": "POST", "url": "/v1/embeddings", "body": {"model": 7}},
        "[]",
    ]
    failed = run(client, lines)
    assert failed.status == "failed"
    assert failed.failed_at
    assert failed.errors is not None
    assert failed.errors.data is not None
    codes = {error.line: error.code for error in failed.errors.data}
    assert codes == {
        2: "invalid_json_line",
        3: "duplicate_custom_id",
        4: "invalid_method",
        5: "mismatched_url",
        6: "invalid_custom_id",
        7: "mismatched_model",
        8: "invalid_request",
        9: "invalid_json_line",
    }
    assert all(f"line {error.line}" in (error.message or "") for error in failed.errors.data)
    assert len(semel.client.jobs(limit=100)) == before


@pytest.mark.parametrize(
    ("lines", "code"), [([], "empty_file"), ([line("a", model="nope", input="x")], "model_not_found")]
)
def test_a_batch_that_cannot_start_reports_why(client: openai.OpenAI, lines: list[Any], code: str) -> None:
    failed = run(client, lines)
    assert failed.status == "failed"
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert [error.code for error in failed.errors.data] == [code]


def test_an_invalid_batch_request_is_refused(client: openai.OpenAI) -> None:
    stored = upload(client, [line("a", input="x")])

    def create(**changed: Any) -> None:
        request = {"input_file_id": stored, "endpoint": "/v1/embeddings", "completion_window": "24h", **changed}
        client.batches.create(**request)

    with pytest.raises(openai.BadRequestError, match="endpoint must be one of /v1/embeddings, /v1/rerank"):
        create(endpoint="/v1/chat/completions")
    with pytest.raises(openai.BadRequestError, match="completion_window: Input should be '24h'"):
        create(completion_window="1h")
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        create(input_file_id="file-nope")
    with pytest.raises(openai.BadRequestError, match="at most 16 pairs"):
        create(metadata={"k": "v" * 600})
    with pytest.raises(openai.NotFoundError, match="there is no batch"):
        client.batches.retrieve("batch_nope")


def test_batches_are_listed_page_by_page(client: openai.OpenAI) -> None:
    ids = [run(client, [line("a", input="x")]).id for _ in range(3)]
    assert [batch.id for batch in client.batches.list(limit=2)][:3] == ids[::-1]


def test_an_output_cannot_be_the_input_of_a_batch(client: openai.OpenAI) -> None:
    done = run(client, [line("a", input="x")])
    with pytest.raises(openai.BadRequestError, match="'batch_output'"):
        client.batches.create(
            input_file_id=done.output_file_id or "", endpoint="/v1/embeddings", completion_window="24h"
        )


@pytest.mark.parametrize("model", ["fake", "reranker"])
def test_rerank_lines_give_what_the_route_gives(semel: Processes, client: openai.OpenAI, model: str) -> None:
    bodies = [
        {"model": model, "query": "the red fox", "documents": ["a red fox", "a dog", "the red one"], "top_n": 2},
        {"model": model, "query": "a dog", "documents": [{"text": "a dog"}, "a cat"], "return_documents": True},
    ]
    done = run(client, [line(str(i), url="/v1/rerank", **body) for i, body in enumerate(bodies)], "/v1/rerank")
    answers = read(client, done.output_file_id)
    for i, body in enumerate(bodies):
        direct = httpx.post(f"{semel.url}/v1/rerank", json=body).json()
        got = answers[str(i)]["response"]["body"]
        assert {**got, "id": ""} == {**direct, "id": ""}


@pytest.mark.parametrize("model", ["fake", "reranker"])
def test_rerank_lines_fail_as_the_route_does(semel: Processes, client: openai.OpenAI, model: str) -> None:
    asked = [("q", ["fine", ""]), ("", ["fine"]), ("q", ["fine", "has poison"]), ("has poison", ["fine"])]
    bodies = [{"model": model, "query": query, "documents": documents} for query, documents in asked]
    done = run(client, [line(str(i), url="/v1/rerank", **body) for i, body in enumerate(bodies)], "/v1/rerank")
    answers = read(client, done.error_file_id)
    for i, body in enumerate(bodies):
        direct = httpx.post(f"{semel.url}/v1/rerank", json=body)
        got = answers[str(i)]["response"]
        assert (got["status_code"], got["body"]) == (direct.status_code, direct.json()), body


# Batches that are cancelled, interrupted or expire


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path, model="text_ms=2") as running:
        yield running


def test_cancel_keeps_what_is_done(slow: Processes) -> None:
    with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="any") as client:
        slow.client.embed(["known"], model="fake")
        lines = [line(f"id-{i}", input="known" if i < 1024 else f"unknown {i}") for i in range(8192)]
        stored = upload(client, lines)
        batch = client.batches.create(input_file_id=stored, endpoint="/v1/embeddings", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        with pytest.raises(openai.ConflictError, match="still reads file"):
            client.files.delete(stored)
        assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
        done = ended(client, batch.id)
        assert done.status == "cancelled"
        assert done.cancelled_at
        assert done.cancelling_at
        output, errors = read(client, done.output_file_id), read(client, done.error_file_id)
        assert {f"id-{i}" for i in range(1024)} <= set(output)
        assert len(output) + len(errors) == 8192
        assert {record["error"]["code"] for record in errors.values()} == {"batch_cancelled"}
        assert done.request_counts is not None
        assert (done.request_counts.completed, done.request_counts.failed) == (len(output), len(errors))
        with pytest.raises(openai.ConflictError, match="cannot be cancelled any more"):
            client.batches.cancel(run(client, [line("a", input="known")]).id)


def test_a_batch_can_be_cancelled_while_it_is_validated(slow: Processes) -> None:
    with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="any", max_retries=0) as client:
        stored = upload(client, [*(line(f"id-{i}", input="x") for i in range(20_000)), "no JSON"])
        batch = client.batches.create(input_file_id=stored, endpoint="/v1/embeddings", completion_window="24h")
        client.batches.cancel(batch.id)
        done = ended(client, batch.id)
        assert (done.status, done.output_file_id, done.error_file_id) == ("cancelled", None, None)
        client.files.delete(stored)


def test_a_batch_survives_the_death_of_the_api(slow: Processes) -> None:
    with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="any", max_retries=0) as client:
        lines = [line(f"id-{i}", input=f"text {i}") for i in range(2000)]
        stored = upload(client, lines)
        batch = client.batches.create(input_file_id=stored, endpoint="/v1/embeddings", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        slow.stop("api", signal.SIGKILL)
        time.sleep(1)
        slow.start_api()
        done = ended(client, batch.id)
        assert done.status == "completed"
        assert len(read(client, done.output_file_id)) == 2000


def test_a_batch_past_its_deadline_expires_and_keeps_what_is_done(slow: Processes) -> None:
    with openai.OpenAI(base_url=f"{slow.url}/v1", api_key="any", max_retries=0) as client:
        slow.client.embed(["known"], model="fake")
        lines = [line(f"id-{i}", input="known" if i < 1024 else f"late {i}") for i in range(8192)]
        stored = upload(client, lines)
        batch = client.batches.create(input_file_id=stored, endpoint="/v1/embeddings", completion_window="24h")
        wait_until(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        with sqlite3.connect(slow.folder / "home" / "semel.db") as db:
            db.execute("UPDATE batches SET expires_at = ?", (time.time(),))
        done = ended(client, batch.id)
        assert done.status == "expired"
        assert done.expired_at
        output, errors = read(client, done.output_file_id), read(client, done.error_file_id)
        assert len(output) >= 1024
        assert len(output) + len(errors) == 8192
        assert {record["error"]["code"] for record in errors.values()} == {"batch_expired"}


def test_the_client_runs_a_batch(semel: Processes, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(json.dumps(line(f"id-{i}", input=f"by the client {i}")) for i in range(5)))
    file_id = semel.client.upload(source)
    done = semel.client.wait_batch(semel.client.submit_batch(file_id, metadata={"a": "b"}).id, timeout_s=60)
    assert (done.status.value, done.total, done.completed, done.failed) == ("completed", 5, 5, 0)
    semel.client.download(done.output_file_id or "", target)
    assert [json.loads(text)["custom_id"] for text in target.read_text().splitlines()] == [f"id-{i}" for i in range(5)]
    semel.client.delete_file(file_id)
    with pytest.raises(NotFoundError):
        semel.client.download(file_id, tmp_path / "gone")
    assert not list(tmp_path.glob("gone*"))
    source.write_text("no JSON")
    failed = semel.client.wait_batch(semel.client.submit_batch(semel.client.upload(source)).id)
    assert failed.status.value == "failed"
    assert "line 1: not JSON" in failed.errors[0]
    with pytest.raises(ConflictError):
        semel.client.cancel_batch(failed.id)


def test_a_large_file_arrives_in_parts(semel: Processes, client: openai.OpenAI, tmp_path: Path) -> None:
    lines = [line(str(i), input=f"in parts {i}") for i in range(50)]
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in lines))
    done = client.uploads.upload_file_chunked(file=file, mime_type="application/jsonl", purpose="batch", part_size=1000)
    assert (done.status, done.file and done.file.bytes) == ("completed", file.stat().st_size)
    assert done.file is not None
    batch = client.batches.create(input_file_id=done.file.id, endpoint="/v1/embeddings", completion_window="24h")
    assert ended(client, batch.id).request_counts.completed == 50  # type: ignore[union-attr]
    begun = client.uploads.create(bytes=5, filename="a.jsonl", mime_type="application/jsonl", purpose="batch")
    client.uploads.parts.create(begun.id, data=b"12345")
    assert client.uploads.cancel(begun.id).status == "cancelled"
