"""What the API reports to Prometheus."""

from typing import Any

import pytest
from prometheus_client import generate_latest

from semel.api.jobs.submission import create, job_ingest, new_job
from semel.api.jobs.wire import JobRequest
from semel.api.watch.metrics import ApiMetrics
from semel.cache.space_use import SpaceUse
from semel.metrics import METRICS
from semel.tasks.fleet.card import WorkerCard
from semel.tasks.jobs.counts import EndedJob
from semel.tasks.jobs.rows import Added
from semel.tasks.jobs.sweep import Swept
from semel.values.text import Outcome
from tests.support.parts import Parts
from tests.support.service import Service
from tests.support.values import space


class Use:
    """Stands for `SpaceUse`; keeps what it counts."""

    def __init__(self) -> None:
        self.counted: list[dict[str, Any]] = []

    def count(self, fingerprint: bytes, **counts: Any) -> None:
        self.counted.append({"fingerprint": fingerprint, **counts})


@pytest.fixture
def metrics() -> ApiMetrics:
    return ApiMetrics(Use())  # type: ignore[arg-type]


def value(metrics: ApiMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def card(worker_id: str, rate: float, *models: str) -> WorkerCard:
    return WorkerCard(
        id=worker_id, device="cpu", host="h", pid=1, started_at=0.0, models=list(models), texts_per_s=rate
    )


HIT, COMPUTED, FAILED = Outcome.HIT, Outcome.COMPUTED, Outcome.FAILED


# Counters of requests


def test_texts_of_a_request_are_counted_by_outcome_and_model(metrics: ApiMetrics) -> None:
    metrics.embedded(space(), [HIT, HIT, COMPUTED])
    counted = {o: value(metrics, "semel_request_texts_total", outcome=o, model="m") for o in Outcome}
    assert counted == {HIT: 2, COMPUTED: 1, Outcome.COALESCED: 0, FAILED: 0}, "all of them, from the start"
    assert value(metrics, "semel_cache_lookups_total", result="hit", model="m") == 2
    assert value(metrics, "semel_cache_lookups_total", result="miss", model="m") == 1
    assert metrics.answered == 2


def test_texts_of_a_job_are_looked_up_when_they_arrive(metrics: ApiMetrics) -> None:
    metrics.ingested(space(), 10, Added(done=4, present=6))
    assert value(metrics, "semel_request_texts_total", outcome="hit", model="m") == 4
    assert value(metrics, "semel_cache_lookups_total", result="hit", model="m") == 6
    assert value(metrics, "semel_cache_lookups_total", result="miss", model="m") == 4
    assert metrics.answered == 4, "a hit in a chunk with a missing text goes to a worker"


def test_hits_save_the_time_of_the_fastest_live_worker(metrics: ApiMetrics) -> None:
    metrics.take_rates([card("a", 50.0, "m", "n"), card("b", 200.0, "m"), card("c", 900.0, "other")])
    metrics.embedded(space(), [HIT] * 10)
    assert value(metrics, "semel_saved_device_seconds_total", model="m") == pytest.approx(0.05)


def test_without_a_known_rate_nothing_is_claimed_to_be_saved(metrics: ApiMetrics) -> None:
    metrics.embedded(space(), [HIT])
    metrics.take_rates([card("a", 50.0, "m")])
    metrics.take_rates([card("b", 0.0, "m")])
    metrics.embedded(space(), [HIT])
    assert value(metrics, "semel_saved_device_seconds_total", model="m") == 0.0


def test_look_ups_are_counted_in_the_database_as_well() -> None:
    use = Use()
    metrics = ApiMetrics(use)  # type: ignore[arg-type]
    metrics.take_rates([card("a", 10.0, "m")])
    metrics.embedded(space(), [HIT, FAILED])
    metrics.ingested(space(), 5, Added(0, 1))
    fingerprint = space().fingerprint
    assert use.counted == [
        {"fingerprint": fingerprint, "lookups": 2, "hits": 1, "saved_s": 0.1},
        {"fingerprint": fingerprint, "lookups": 5, "hits": 1, "saved_s": 0.1},
    ]


def test_the_time_until_an_answer_is_observed_by_route_and_status(metrics: ApiMetrics) -> None:
    metrics.responded("GET", "/v1/jobs/{job_id}", 404, 0.2)
    labels = {"method": "GET", "route": "/v1/jobs/{job_id}", "status": "404"}
    assert value(metrics, "semel_http_request_seconds_sum", **labels) == 0.2
    assert value(metrics, "semel_http_request_seconds_bucket", **labels, le="0.1") == 0
    assert value(metrics, "semel_http_request_seconds_bucket", **labels, le="0.25") == 1


def test_what_a_sweep_started_again_is_counted_by_reason(metrics: ApiMetrics) -> None:
    metrics.swept(Swept(leases_expired=2, messages_lost=3))
    metrics.swept(Swept(leases_expired=1))
    assert value(metrics, "semel_chunks_resent_total", reason="lease_expired") == 3
    assert value(metrics, "semel_chunks_resent_total", reason="message_lost") == 3


def test_the_times_of_ended_jobs_are_observed(metrics: ApiMetrics) -> None:
    metrics.ended([
        EndedJob("a", "completed", 100.0, 103.0, 110.0),
        EndedJob("b", "failed", 100.0, None, 101.0),
        EndedJob("retried", "completed", 100.0, 50.0, 104.0),
        EndedJob("other clock", "completed", 100.0, None, 99.0),
    ])  # fmt: skip
    assert value(metrics, "semel_job_seconds_sum", status="completed") == 14.0
    assert value(metrics, "semel_job_seconds_count", status="completed") == 3
    assert value(metrics, "semel_job_seconds_sum", status="failed") == 1.0
    assert value(metrics, "semel_job_first_result_seconds_sum") == 3.0
    assert value(metrics, "semel_job_first_result_seconds_count") == 1, "an earlier try had the other one"


def test_two_apis_in_one_process_do_not_share_their_counters(metrics: ApiMetrics) -> None:
    metrics.embedded(space(), [HIT])
    assert value(ApiMetrics(Use()), "semel_request_texts_total", outcome="hit", model="m") is None  # type: ignore[arg-type]


# Readings on each scrape


def reading(running: Parts, name: str, **labels: str) -> float | None:
    return running.services.watch.metrics.registry.get_sample_value(name, labels)


def test_jobs_are_counted_by_status(running: Parts) -> None:
    with new_job(running.services, JobRequest(input=[])) as ingest:
        ingest.add("counted when it is done")
        ingest.finish()
    assert reading(running, "semel_jobs", status="completed") == 1
    assert reading(running, "semel_jobs", status="failed") is None


def test_queues_and_workers_are_those_of_this_moment(running: Parts) -> None:
    running.worker.paused = True
    ingest = job_ingest(running.services, create(running.services, JobRequest(input=[])))
    for i in range(50):
        ingest.add(f"waits in the queue {i}")
    job = ingest.finish()
    running.services.fleet.redis.lpush("bulk.cpu", "a message")
    assert reading(running, "semel_queue_texts", queue="bulk.cpu") == 50
    assert reading(running, "semel_queue_work_seconds", queue="bulk.cpu") == 0.05
    assert reading(running, "semel_queue_messages", queue="bulk.cpu") == 1
    assert reading(running, "semel_queue_oldest_seconds", queue="interactive.cpu") == 0.0
    assert reading(running, "semel_workers", device="cpu", status="healthy") == 1
    running.services.fleet.redis.delete("bulk.cpu")
    running.services.stores.jobs.cancel(job.id)
    running.worker.paused = False


def test_an_unknown_time_is_left_out(running: Parts) -> None:
    job = create(running.services, JobRequest(input=[], device="mlx"))
    running.worker.paused = True
    ingest = job_ingest(running.services, job)
    ingest.add("waits for a device")
    ingest.finish()
    assert reading(running, "semel_queue_texts", queue="bulk.mlx") == 1
    assert reading(running, "semel_queue_work_seconds", queue="bulk.mlx") is None
    running.services.stores.jobs.cancel(job.id)
    running.worker.paused = False


def test_a_failed_device_is_reported_as_a_failed_worker(running: Parts) -> None:
    failed = WorkerCard(id="f", device="cuda:0", host="h", pid=1, started_at=0.0, state="failed")
    running.services.fleet.roster.report_failed(failed)
    assert reading(running, "semel_workers", device="cuda", status="failed") == 1
    running.services.fleet.roster.forget_failed(failed)


def test_the_age_of_a_heartbeat_is_that_of_the_oldest_in_its_pool(running: Parts) -> None:
    client = running.services.fleet.redis
    for worker, left_ms in (("young", 8000), ("old", 3000)):
        running.publish(WorkerCard(id=worker, device="vulkan:0", host="h", pid=1, started_at=0.0))
        client.pexpire(f"semel:worker:{worker}", left_ms)
    assert reading(running, "semel_heartbeat_age_seconds", device="vulkan") == pytest.approx(5.0, abs=0.5)
    for worker in ("young", "old"):
        running.services.fleet.roster.leave(worker)


def test_without_redis_the_database_is_still_reported(running: Parts) -> None:
    job = create(running.services, JobRequest(input=[]))
    with running.redis_gone():
        text = generate_latest(running.services.watch.metrics.registry).decode()
    running.services.stores.jobs.cancel(job.id)
    assert 'semel_jobs{status="validating"} 1.0' in text
    assert "semel_queue_texts{" not in text
    assert "semel_workers{" not in text


def test_vectors_are_counted_when_the_cache_is_and_summed_over_prompts(running: Parts) -> None:
    services = running.services
    for prompt, texts in (("query", ["a", "b"]), ("document", ["a"])):
        services.pipeline.embed(services.stores.catalog.space("prompted", prompt), texts)
    assert reading(running, "semel_cache_entries", model="prompted") is None, "not counted yet"
    services.watch.contents.forget()
    services.watch.readings.count_cache()
    assert reading(running, "semel_cache_entries", model="prompted") == 3
    assert reading(running, "semel_cache_bytes", model="prompted") == 3 * 16 * 4


def test_pruned_and_damaged_vectors_are_counted(running: Parts) -> None:
    services = running.services
    fingerprint = services.stores.catalog.space("prompted").fingerprint
    services.pipeline.embed(services.stores.catalog.space("prompted"), ["pruned"])
    assert services.pruner.prune(fingerprint=fingerprint) == 1
    services.stores.vectors.count_damaged(2)
    assert reading(running, "semel_cache_evictions_total") == 1
    assert reading(running, "semel_cache_verify_failures_total") == 2


def test_every_metric_of_a_scrape_is_in_the_table(running: Parts) -> None:
    names = {family.name for family in running.services.watch.metrics.registry.collect()}
    own = {name for name in names if name.startswith("semel_")}
    assert own
    assert own <= {name.removesuffix("_total") for name in METRICS}


def test_the_route_speaks_the_format_of_prometheus(api: Service) -> None:
    api.http.post("/v1/embeddings", json={"input": "scraped"})
    answer = api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'semel_request_texts_total{model="fake",outcome="computed"} 1.0' in answer.text


def test_use_of_spaces_is_written_by_the_services(running: Parts) -> None:
    use: SpaceUse = running.services.stores.space_use
    before = use.totals().lookups
    running.services.pipeline.embed(running.services.stores.catalog.space("fake"), ["used once more"])
    use.write()
    assert use.totals().lookups > before
