"""The metrics of a worker, as Prometheus reads them."""

import socket

import pytest

from semel.cache.claims import RedisClaims
from semel.errors import UnavailableError
from semel.tasks.jobs.sweep import Swept
from semel.tasks.worker.metrics import WorkerMetrics
from semel.values.text import Lane, Outcome
from tests.support.computing import Device
from tests.support.fleet import Fleet


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics("vulkan:1")


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_texts_are_counted_by_outcome_and_model_and_the_device_by_its_kind(metrics: WorkerMetrics) -> None:
    metrics.message("m", {Outcome.HIT: 3, Outcome.COMPUTED: 2})
    metrics.message("m", {Outcome.HIT: 1})
    assert value(metrics, "semel_texts_total", outcome="hit", model="m", device="vulkan") == 4
    assert value(metrics, "semel_texts_total", outcome="computed", model="m", device="vulkan") == 2
    assert value(metrics, "semel_messages_total", device="vulkan") == 2


def test_failures_are_at_zero_from_the_first_message_on_so_that_an_alert_sees_the_first_one(
    metrics: WorkerMetrics,
) -> None:
    metrics.message("m", {Outcome.COMPUTED: 1})
    assert value(metrics, "semel_texts_total", outcome="failed", model="m", device="vulkan") == 0


def test_stages_and_batches_are_observed(metrics: WorkerMetrics) -> None:
    metrics.observe("queue", 0.5)
    metrics.observe("queue", 1.5)
    metrics.batch(8, 64)
    assert value(metrics, "semel_stage_seconds_sum", stage="queue", device="vulkan") == 2.0
    assert value(metrics, "semel_stage_seconds_count", stage="queue", device="vulkan") == 2
    assert value(metrics, "semel_batch_texts_sum", device="vulkan") == 8
    assert value(metrics, "semel_batch_tokens_sum", device="vulkan") == 64


def test_chunks_that_are_sent_again_are_counted_by_reason(metrics: WorkerMetrics) -> None:
    metrics.count_swept(Swept(leases_expired=2, messages_lost=1, jobs_deleted=7))
    assert value(metrics, "semel_chunks_resent_total", reason="lease_expired") == 2
    assert value(metrics, "semel_chunks_resent_total", reason="message_lost") == 1


def test_redeliveries_are_at_zero_before_the_first(metrics: WorkerMetrics) -> None:
    assert value(metrics, "semel_redeliveries_total", device="vulkan") == 0
    metrics.redelivered()
    assert value(metrics, "semel_redeliveries_total", device="vulkan") == 1


def test_engine_models_claims_and_store_are_read_at_each_scrape(
    metrics: WorkerMetrics, device: Device, fleet: Fleet
) -> None:
    claims = RedisClaims(fleet.redis, ttl_s=10, owner="w")
    metrics.watch(device.engine, device.models, claims, fleet.store)
    assert value(metrics, "semel_tokens_total", device="vulkan") == 0
    assert value(metrics, "semel_model_load_seconds", model="m", device="vulkan") is None
    device.embedder.compute(device.model, "", device.missing("one", "two words"), lane=Lane.BULK)
    claims.take([b"a" * 32, b"b" * 32])
    claims.take([b"b" * 32])
    assert value(metrics, "semel_tokens_total", device="vulkan") == 3
    assert value(metrics, "semel_padded_tokens_total", device="vulkan") in (3, 4)
    busy_s = value(metrics, "semel_device_busy_seconds_total", device="vulkan")
    assert busy_s is not None
    assert busy_s > 0
    load_s = value(metrics, "semel_model_load_seconds", model="m", device="vulkan")
    assert load_s is not None
    assert load_s > 0
    assert value(metrics, "semel_claims_total", result="taken") == 2
    assert value(metrics, "semel_claims_total", result="held") == 1
    assert value(metrics, "semel_cache_verify_failures_total") == 0
    memory = value(metrics, "semel_memory_bytes", device="vulkan")
    assert memory is not None
    assert memory > 0


def test_a_port_that_is_taken_is_named_with_the_setting(metrics: WorkerMetrics) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UnavailableError, match=rf"127\.0\.0\.1:{port}: .*SEMEL_METRICS_PORT"):
            metrics.serve("127.0.0.1", port)
