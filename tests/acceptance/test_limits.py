"""Bodies above their limit are refused with 413 on every route; what is streamed has its own limit or none."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Processes, processes

LIMIT = 100_000


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder: Path = tmp_path_factory.mktemp("narrow")
    limits = {"SEMEL_MAX_BODY_BYTES": str(LIMIT), "SEMEL_MAX_FILE_BYTES": str(2 * LIMIT), "SEMEL_MAX_BATCH_LINES": "3"}
    limits["SEMEL_MAX_TEXT_BYTES"] = str(LIMIT // 2)
    with processes(folder, **limits) as running:
        yield running


@pytest.mark.parametrize(
    ("path", "body", "message_at"),
    [
        ("/v1/embeddings", {"model": "fake", "input": ["x" * LIMIT]}, ("error", "message")),
        ("/v1/jobs", {"model": "fake", "input": ["x" * LIMIT]}, ("error", "message")),
        ("/v1/rerank", {"model": "fake", "query": "q", "documents": ["x" * LIMIT]}, ("message",)),
        ("/v2/embed", {"model": "fake", "texts": ["x" * LIMIT], "input_type": "clustering"}, ("message",)),
        ("/embed", {"inputs": "x" * LIMIT}, ("error",)),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(
    narrow: Processes, path: str, body: object, message_at: tuple[str, ...], chunked: bool
) -> None:
    content = json.dumps(body).encode()
    parts = (content[at : at + 9000] for at in range(0, len(content), 9000))
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{narrow.url}{path}", content=parts if chunked else content, headers=headers)
    assert answer.status_code == 413
    reported = answer.json()
    for name in message_at:
        reported = reported[name]
    assert "SEMEL_MAX_BODY_BYTES" in reported
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["fine", "x" * (LIMIT // 2 + 1)]}),
        ("/v1/rerank", {"query": "q", "documents": ["fine", "x" * (LIMIT // 2 + 1)]}),
        ("/v1/rerank", {"query": "x" * (LIMIT // 2 + 1), "documents": ["fine"]}),
        ("/v2/embed", {"texts": ["x" * (LIMIT // 2 + 1)], "input_type": "clustering"}),
        ("/embed", {"inputs": "x" * (LIMIT // 2 + 1)}),
    ],
)
def test_a_long_text_is_refused_as_in_a_job(narrow: Processes, path: str, body: object) -> None:
    answer = httpx.post(f"{narrow.url}{path}", json=body)
    assert 400 <= answer.status_code < 500
    assert f"is longer than {LIMIT // 2} characters (SEMEL_MAX_TEXT_BYTES)" in answer.text
    job = narrow.client.wait(narrow.client.submit(["fine", "x" * (LIMIT // 2 + 1)]).id)
    assert (job.counts.computed + job.counts.hit, job.counts.failed) == (1, 1)


def test_ndjson_has_no_limit(narrow: Processes) -> None:
    lines = "".join(json.dumps({"text": f"{i} " + "x" * 1000}) + "\n" for i in range(300)).encode()
    headers = {"content-type": "application/x-ndjson"}
    answer = httpx.post(f"{narrow.url}/v1/jobs", content=lines, headers=headers)
    assert answer.status_code == 202
    assert narrow.client.wait(answer.json()["id"]).counts.done == 300


def test_files_and_tables_have_their_own_limit(narrow: Processes) -> None:
    for size, expected in ((2 * LIMIT - 1000, 200), (3 * LIMIT, 413)):
        answer = httpx.post(f"{narrow.url}/v1/files", data={"purpose": "batch"}, files={"file": b"x" * size})
        assert answer.status_code == expected, size
    headers = {"content-type": "text/csv"}
    answer = httpx.post(f"{narrow.url}/v1/jobs", content=b"text\n" + b"x\n" * LIMIT * 2, headers=headers)
    assert answer.status_code == 413
    assert "SEMEL_MAX_FILE_BYTES" in answer.text
    assert [path.name for path in (narrow.folder / "home" / "files").iterdir() if path.name.startswith("part-")] == []


def test_the_lines_of_a_batch_are_limited_in_number_and_length(narrow: Processes) -> None:
    def batch(lines: int, text: str = "x") -> dict[str, object]:
        body = {"model": "fake", "input": text}
        texts = [
            json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": body})
            for i in range(lines)
        ]
        file = httpx.post(
            f"{narrow.url}/v1/files", data={"purpose": "batch"}, files={"file": "\n".join(texts).encode()}
        ).json()["id"]
        request = {"input_file_id": file, "endpoint": "/v1/embeddings"}
        made = httpx.post(f"{narrow.url}/v1/batches", json=request).json()
        while made["status"] not in ("completed", "failed"):
            made = httpx.get(f"{narrow.url}/v1/batches/{made['id']}").json()
        return made  # type: ignore[no-any-return]

    assert batch(3)["status"] == "completed"
    long = batch(1, text="x" * LIMIT)
    assert [(e["code"], e["line"]) for e in long["errors"]["data"]] == [("line_too_long", 1)]  # type: ignore[index]
    failed = batch(4)
    assert failed["status"] == "failed"
    assert failed["errors"]["data"][0]["code"] == "too_many_lines"  # type: ignore[index]
