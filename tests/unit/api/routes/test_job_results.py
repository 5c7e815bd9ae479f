"""GET /v1/jobs/ID/results in this process."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.api.jobs.wire import JobObject
from tests.support.answers import message_of
from tests.support.service import Service
from tests.support.workers import paused


def submit(api: Service, *texts: Any, **options: Any) -> JobObject:
    return JobObject.model_validate(api.http.post("/v1/jobs", json={"input": list(texts), **options}).json())


def get(api: Service, job: JobObject, part: str, **params: Any) -> Any:
    return api.http.get(f"/v1/jobs/{job.id}{part}", params=params)


def test_results_have_the_same_vectors_in_every_format(api: Service) -> None:
    job = submit(api, "one", "two", "one")
    lines = [json.loads(line) for line in get(api, job, "/results").text.splitlines()]
    vectors = np.array([line["embedding"] for line in lines], np.float32)
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert np.array_equal(np.load(io.BytesIO(get(api, job, "/results", format="npy").content)), vectors)
    arrow = pa.ipc.open_stream(get(api, job, "/results", format="arrow").content).read_all()
    parquet = pq.read_table(io.BytesIO(get(api, job, "/results", format="parquet").content))
    for table in (arrow, parquet):
        assert np.array_equal(np.stack(table["embedding"].to_numpy()), vectors)


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [("ndjson", "application/x-ndjson"), ("npy", "application/octet-stream"),
     ("arrow", "application/vnd.apache.arrow.stream"), ("parquet", "application/vnd.apache.parquet")],
)  # fmt: skip
def test_a_download_is_named_after_the_job_or_its_file(api: Service, kind: str, media_type: str) -> None:
    for metadata, stem in (({}, None), ({"file": "folder/näme 1.csv"}, "n%C3%A4me%201")):
        job = submit(api, "downloaded", metadata=metadata)
        headers = get(api, job, "/results", format=kind).headers
        assert headers["content-type"] == media_type
        assert headers["content-disposition"] == (
            f"attachment; filename=\"{job.id}.{kind}\"; filename*=UTF-8''{stem or job.id}.{kind}"
        )


@pytest.mark.parametrize(
    ("params", "indices"),
    [({}, [0, 1, 2, 3]), ({"offset": 2}, [2, 3]), ({"limit": 1}, [0]), ({"offset": 1, "limit": 2}, [1, 2]),
     ({"offset": 3, "limit": 9}, [3]), ({"offset": 4}, []), ({"offset": 99, "limit": 1}, [])],
)  # fmt: skip
def test_a_range_is_that_part_of_the_results(api: Service, params: dict[str, int], indices: list[int]) -> None:
    job = submit(api, "r0", "r1", "r2", "r3")
    lines = [json.loads(line) for line in get(api, job, "/results", **params).text.splitlines()]
    assert [line["index"] for line in lines] == indices
    rows = np.load(io.BytesIO(get(api, job, "/results", format="npy", **params).content))
    assert rows.shape == (len(indices), 16)


def test_npy_is_refused_for_a_job_with_failed_texts(api: Service) -> None:
    answer = get(api, submit(api, "fine", "poison"), "/results", format="npy")
    assert (answer.status_code, "npy cannot mark their rows" in message_of(answer)) == (409, True)


def test_results_are_a_conflict_until_the_job_is_completed(api: Service) -> None:
    with paused(api):
        job = submit(api, "not done yet")
        answer = get(api, job, "/results")
    assert (answer.status_code, "is in_progress" in message_of(answer)) == (409, True)
