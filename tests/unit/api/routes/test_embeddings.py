"""POST /v1/embeddings in this process."""

import base64

import numpy as np

from tests.support.service import Service


def test_vectors_come_in_order_with_duplicates(api: Service) -> None:
    answer = api.http.post("/v1/embeddings", json={"input": ["one", "two", "one"]})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert [item["index"] for item in data] == [0, 1, 2]
    assert data[0]["embedding"] == data[2]["embedding"] != data[1]["embedding"]
    assert answer.headers["x-semel-cache"] == "hits=0; computed=2; coalesced=1"


def test_base64_holds_the_same_numbers(api: Service) -> None:
    body = {"input": "in two shapes"}
    plain = api.http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    packed = api.http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == np.array(plain, np.float32).tolist()


def test_a_job_runs_from_submission_to_results(api: Service) -> None:
    job = api.http.post("/v1/jobs", json={"input": ["a job of", "two texts"]}).json()
    done = api.http.get(f"/v1/jobs/{job['id']}").json()
    assert (done["status"], done["counts"]["computed"]) == ("completed", 2)
    lines = api.http.get(f"/v1/jobs/{job['id']}/results").text.splitlines()
    assert len(lines) == 2
