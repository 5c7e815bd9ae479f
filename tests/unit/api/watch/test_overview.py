"""The overview that the page shows first."""

import pytest

from semel.api.edge.as_json import as_json
from semel.api.jobs.submission import new_job
from semel.api.jobs.wire import JobRequest
from semel.api.watch.overview import overview
from semel.errors import UnavailableError
from tests.support.parts import Parts


def test_one_reading_has_everything_that_the_page_shows(running: Parts) -> None:
    found = overview(running.services)
    assert found.keys() == {"pools", "queues", "jobs", "point", "cache", "ready"}
    assert [pool["device"] for pool in found["pools"]] == ["cpu"]
    assert [queue["queue"] for queue in found["queues"]] == ["interactive.cpu", "bulk.cpu"]
    assert found["ready"]["ready"] is True
    assert found["point"] == running.services.watch.throughput.last()
    assert as_json(found)


def test_it_counts_jobs_and_look_ups(running: Parts) -> None:
    services = running.services
    with new_job(services, JobRequest(input=[])) as ingest:
        ingest.add("shown in the overview")
        ingest.finish()
    services.pipeline.embed(services.stores.catalog.space("fake"), ["shown in the overview"])
    services.stores.space_use.write()
    services.watch.throughput.sample([], hits_here=0)
    services.watch.throughput.sample([], hits_here=0)
    found = overview(services)
    assert found["jobs"] == {"completed": 1}
    assert (found["cache"]["lookups"], found["cache"]["hits"]) == (2, 1)
    assert found["point"]["hit"] == 0.0


def test_without_redis_there_is_no_overview(running: Parts) -> None:
    with running.redis_gone(), pytest.raises(UnavailableError, match="Redis does not answer"):
        overview(running.services)
