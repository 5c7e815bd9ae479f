"""Every metric of semel, by Prometheus' conventions: one table, from which the docs are made, too.

Labels have few values: outcomes, models of the configuration, kinds of device, queues. A worker serves its figures on
SEMEL_METRICS_PORT, the API at /metrics.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Sample: TypeAlias = tuple[Sequence[str], float]
"""Values of the labels, in their order, and the value."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True)
class Metric:
    """What one metric is; `buckets` are a histogram's."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS


_OF_BOTH = (
    Metric("semel_chunks_resent_total", "counter", "Chunks that were started again, by why.", ("reason",)),
    Metric("semel_cache_verify_failures_total", "counter", "Damaged vectors that were found by reading or verifying."),
)

_OF_WORKERS = (
    Metric("semel_texts_total", "counter", "Texts of finished messages.", ("outcome", "model", "device")),
    Metric("semel_messages_total", "counter", "Chunks and small requests that were done.", ("device",)),
    Metric(
        "semel_stage_seconds",
        "histogram",
        "Time of a message in the queue; of tokenising; of a batch on the device; of storing its vectors.",
        ("stage", "device"),
    ),
    Metric("semel_batch_texts", "histogram", "Texts in a batch.", ("device",), _TEXTS),
    Metric("semel_batch_tokens", "histogram", "Tokens in a batch, with padding.", ("device",), _TOKENS),
    Metric("semel_tokens_total", "counter", "Tokens that the device read.", ("device",)),
    Metric("semel_padded_tokens_total", "counter", "Tokens that it computed, with padding.", ("device",)),
    Metric("semel_device_busy_seconds_total", "counter", "Time in which the device computed.", ("device",)),
    Metric("semel_memory_halvings_total", "counter", "Batches that were too large for memory.", ("device",)),
    Metric("semel_memory_bytes", "gauge", "Memory of the device, or of the process.", ("device",)),
    Metric("semel_memory_total_bytes", "gauge", "What there is of that memory.", ("device",)),
    Metric("semel_gpu_utilization_ratio", "gauge", "Of the GPU, where the driver tells.", ("device",)),
    Metric("semel_model_load_seconds", "gauge", "What loading a model took.", ("model", "device")),
    Metric(
        "semel_claims_total",
        "counter",
        "Keys to compute: taken, held by another worker, or expired in hand.",
        ("result",),
    ),
    Metric("semel_redeliveries_total", "counter", "Messages that Redis gave out a second time.", ("device",)),
    *_OF_BOTH,
)

_OF_THE_API = (
    Metric("semel_queue_messages", "gauge", "Messages that wait in Redis.", ("queue",)),
    Metric("semel_queue_texts", "gauge", "Texts of open jobs that are not done.", ("queue",)),
    Metric("semel_queue_work_seconds", "gauge", "Texts that wait, over the measured rate.", ("queue",)),
    Metric("semel_queue_oldest_seconds", "gauge", "Age of the oldest message that nobody took.", ("queue",)),
    Metric("semel_jobs", "gauge", "Jobs that are kept.", ("status",)),
    Metric(
        "semel_job_seconds",
        "histogram",
        "From a job's creation, or its last retry, to its end.",
        ("status",),
        _LONG_SECONDS,
    ),
    Metric(
        "semel_job_first_result_seconds",
        "histogram",
        "From a job's creation, or its last retry, until its first chunk was done; told when it has ended.",
        (),
        _LONG_SECONDS,
    ),
    Metric("semel_workers", "gauge", "Workers, by kind of device.", ("device", "status")),
    Metric("semel_heartbeat_age_seconds", "gauge", "Age of the oldest heartbeat of a pool.", ("device",)),
    Metric("semel_cache_entries", "gauge", "Vectors in the cache, counted once a minute.", ("model",)),
    Metric("semel_cache_bytes", "gauge", "Their bytes, without indexes.", ("model",)),
    Metric(
        "semel_cache_lookups_total",
        "counter",
        "Texts that the API looked up, by whether the cache had them: the hit rate.",
        ("result", "model"),
    ),
    Metric("semel_cache_evictions_total", "counter", "Vectors that were pruned through this API."),
    Metric(
        "semel_request_texts_total",
        "counter",
        "Texts that the API answered or, as hits, took out of jobs.",
        ("outcome", "model"),
    ),
    Metric(
        "semel_saved_device_seconds_total",
        "counter",
        "Device time that the hits among the look-ups would have cost, at the measured rate.",
        ("model",),
    ),
    Metric("semel_http_request_seconds", "histogram", "Time until an answer began.", ("method", "route", "status")),
    *_OF_BOTH,
)

METRICS = {metric.name: metric for metric in (*_OF_WORKERS, *_OF_THE_API)}


def new_registry() -> CollectorRegistry:
    """With prometheus_client's own metrics of the process in it."""
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


def counter(name: str, registry: CollectorRegistry) -> Counter:
    """A counter of the table, which its owner increases."""
    metric = METRICS[name]
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """A histogram of the table."""
    metric = METRICS[name]
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


class Resent:
    """Counts the chunks that sweeps started again. Workers and the API sweep; each counts its own sweeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._chunks = counter("semel_chunks_resent_total", registry)

    def count(self, *, leases_expired: int, messages_lost: int) -> None:
        """Add what one sweep started again."""
        self._chunks.labels("lease_expired").inc(leases_expired)
        self._chunks.labels("message_lost").inc(messages_lost)


class Read(Collector):
    """Metrics that are read off something else when Prometheus asks.

    Args:
        read: name of a metric → its samples.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[str, Iterable[Sample]]]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        return []

    def collect(self) -> Iterable[Family]:
        for name, samples in self._read():
            metric = METRICS[name]
            kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in samples:
                family.add_metric(list(labels), value)
            yield family


def as_markdown() -> str:
    """The tables of docs/reference/metrics.md."""
    return "\n".join(("## Workers", "", _table(_OF_WORKERS), "## API", "", _table(_OF_THE_API)))


def _table(metrics: Sequence[Metric]) -> str:
    rows = ["| name | kind | labels | what |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.help} |" for m in metrics]
    return "\n".join(rows) + "\n"
