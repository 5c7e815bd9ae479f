"""A line of a batch gets the answer that its request would get from the route, whatever its parameters."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.processes import wait_until
from tests.support.service import Service, service
from tests.unit.api.dialects.test_every_parameter import HONOURED, MODELS, numbers


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("parameters"), models=MODELS) as running:
        yield running


def answers(api: Service, endpoint: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of a batch whose lines have these bodies, in order."""
    lines = [
        json.dumps({"custom_id": str(i), "method": "POST", "url": endpoint, "body": body})
        for i, body in enumerate(bodies)
    ]
    file = api.http.post("/v1/files", data={"purpose": "batch"}, files={"file": "\n".join(lines).encode()}).json()
    order = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"}
    batch = api.http.post("/v1/batches", json=order).json()
    wait_until(lambda: api.http.get(f"/v1/batches/{batch['id']}").json()["status"] in ("completed", "failed"))
    batch = api.http.get(f"/v1/batches/{batch['id']}").json()
    assert batch["request_counts"]["failed"] == 0, batch
    output = api.http.get(f"/v1/files/{batch['output_file_id']}/content").text
    return [json.loads(line)["response"]["body"] for line in output.splitlines()]


@pytest.mark.parametrize("endpoint", ["/v1/embeddings", "/v1/rerank"])
def test_every_parameter_is_honoured_in_a_batch(api: Service, endpoint: str) -> None:
    plain, fields = HONOURED[endpoint]
    bodies = [plain, *({**plain, name: value} for name, value in fields.items())]
    for body, answer in zip(bodies, answers(api, endpoint, bodies), strict=True):
        varying = ("id", "usage", "meta")
        assert {k: v for k, v in answer.items() if k not in varying} == numbers(api, endpoint, body), body


@pytest.mark.parametrize(
    ("option", "same"),
    [
        ({"max_tokens": 2}, {"text": "one two"}),
        ({"max_tokens": 2, "truncate_side": "left"}, {"text": "three four"}),
        ({"document_tokens": 3}, {"text": "one two three"}),
    ],
)
def test_a_job_reads_its_texts_as_it_was_asked_to(api: Service, option: dict[str, Any], same: dict[str, Any]) -> None:
    def vector(body: dict[str, Any]) -> list[float]:
        job = api.http.post("/v1/jobs", json=body).json()
        wait_until(lambda: api.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "completed")
        found: list[float] = api.http.get(f"/v1/jobs/{job['id']}/results").json()["embedding"]
        return found

    assert vector({"input": [{"text": "one two three four"}], **option}) == vector({"input": [same]})


def test_a_job_of_pairs_returns_scores_and_not_logits(api: Service) -> None:
    job = api.http.post("/v1/jobs", json={"model": "reranker", "input": [{"query": "a", "document": "a"}]}).json()
    wait_until(lambda: api.http.get(f"/v1/jobs/{job['id']}").json()["status"] == "completed")
    assert api.http.get(f"/v1/jobs/{job['id']}/results").json()["score"] == pytest.approx(0.7310586)
    npy = api.http.get(f"/v1/jobs/{job['id']}/results?format=npy").content
    assert npy[-4:] != b"\0\0\x80\x3f", "the cached logit is 1.0"
