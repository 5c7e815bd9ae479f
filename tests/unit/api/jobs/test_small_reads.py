"""Jobs and small results that are read together: each answer is that of its own job."""

import json

import pytest
from sqlalchemy import delete

from semel.api.jobs.small_reads import SMALL_TEXTS, Read, SmallReads, Wanted
from semel.cache.schema import vectors
from semel.errors import ConflictError, NotFoundError
from tests.support.service import Service
from tests.support.workers import paused


@pytest.fixture
def reads(api: Service) -> SmallReads:
    return api.app.state.small_reads  # type: ignore[no-any-return]


def submit(api: Service, *texts: str) -> str:
    job_id: str = api.http.post("/v1/jobs", json={"input": list(texts)}).json()["id"]
    return job_id


def lines(read: Read) -> list[dict[str, object]]:
    assert read.body is not None
    return [json.loads(line) for line in read.body.splitlines()]


def test_every_job_gets_its_own_rows_and_errors_stay_with_theirs(api: Service, reads: SmallReads) -> None:
    one, two = submit(api, "a small job", "of two texts"), submit(api, "another small job")
    with paused(api):
        waits = submit(api, "nobody computes this one now")
        wanted = [Wanted(two, "ndjson"), Wanted("job_none", "ndjson"), Wanted(waits, "ndjson"), Wanted(one, "ndjson")]
        found = reads._read([*wanted, Wanted(waits)])
    of_two, missing, open_job, of_one, job = found
    assert isinstance(of_two, Read)
    assert isinstance(of_one, Read)
    assert [len(lines(of_one)), len(lines(of_two))] == [2, 1]
    alone = api.http.get(f"/v1/jobs/{two}/results").content
    assert of_two.body == alone
    assert isinstance(missing, NotFoundError)
    assert isinstance(open_job, ConflictError)
    assert isinstance(job, Read)
    assert (job.job.id, job.body) == (waits, None)


def test_a_job_with_many_texts_is_streamed(api: Service, reads: SmallReads) -> None:
    job_id = submit(api, *(f"one of many {i}" for i in range(SMALL_TEXTS + 1)))
    (read,) = reads._read([Wanted(job_id, "ndjson")])
    assert isinstance(read, Read)
    assert read.body is None
    assert len(api.http.get(f"/v1/jobs/{job_id}/results").content.splitlines()) == SMALL_TEXTS + 1


def test_a_lost_vector_is_computed_where_nobody_else_waits_for_it(api: Service, reads: SmallReads) -> None:
    job_id = submit(api, "its vector will be lost", "poison")  # a chunk with a failed text keeps its texts
    before = api.http.get(f"/v1/jobs/{job_id}/results").content
    with api.services.stores.db.write() as conn:
        conn.execute(delete(vectors))
    (read,) = reads._read([Wanted(job_id, "ndjson")])
    assert isinstance(read, Read)
    assert read.body is None
    assert api.http.get(f"/v1/jobs/{job_id}/results").content == before
