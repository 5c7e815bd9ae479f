"""Every metric of semel in one table, from which docs/reference/metrics.md is made as well.

Names follow Prometheus' conventions. Labels have few values: outcomes, models of the configuration, kinds of device,
queues. A worker serves its metrics on SEMEL_METRICS_PORT, the API at /metrics.
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
from typing_extensions import override

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Sample: TypeAlias = tuple[Sequence[str], float]
"""The values of the labels, in the order of `Metric.labels`, and the value of the metric."""

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True)
class Metric:
    """The definition of one metric.

    Attributes:
        name: with unit, and `_total` for a counter.
        kind: its type.
        help: one sentence, in the docs and in the answer to Prometheus.
        labels: their names.
        buckets: upper bounds, for a histogram only.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _SECONDS


_SHARED = (
    Metric("semel_chunks_resent_total", "counter", "Chunks that were sent again, by reason.", ("reason",)),
    Metric("semel_cache_verify_failures_total", "counter", "Damaged vectors that a read or a verification found."),
)

_WORKERS = (
    Metric("semel_texts_total", "counter", "Texts of finished messages, by outcome.", ("outcome", "model", "device")),
    Metric("semel_messages_total", "counter", "Finished messages: chunks and small requests.", ("device",)),
    Metric(
        "semel_stage_seconds",
        "histogram",
        "Duration of each stage: a message in the queue, tokenising, a batch on the device, storing its vectors.",
        ("stage", "device"),
    ),
    Metric("semel_batch_texts", "histogram", "Texts in a device batch.", ("device",), _TEXTS),
    Metric("semel_batch_tokens", "histogram", "Tokens in a device batch, padding included.", ("device",), _TOKENS),
    Metric("semel_tokens_total", "counter", "Tokens that the device read, padding not included.", ("device",)),
    Metric("semel_padded_tokens_total", "counter", "Tokens that the device read, padding included.", ("device",)),
    Metric("semel_device_busy_seconds_total", "counter", "Time that the device spent computing.", ("device",)),
    Metric("semel_memory_halvings_total", "counter", "Device batches that did not fit into memory.", ("device",)),
    Metric("semel_memory_bytes", "gauge", "Memory in use on the device, or by the process.", ("device",)),
    Metric("semel_memory_total_bytes", "gauge", "Size of the memory that semel_memory_bytes is part of.", ("device",)),
    Metric("semel_gpu_utilization_ratio", "gauge", "Utilization of the GPU, if the driver reports it.", ("device",)),
    Metric("semel_model_load_seconds", "gauge", "Time that it took to load a model.", ("model", "device")),
    Metric(
        "semel_claims_total",
        "counter",
        "Keys that the worker claimed (taken), that another had claimed (held), or whose claim expired too early.",
        ("result",),
    ),
    Metric("semel_redeliveries_total", "counter", "Messages that Redis delivered a second time.", ("device",)),
    *_SHARED,
)

_API = (
    Metric(
        "semel_queue_messages",
        "gauge",
        "Messages that wait in Redis; a worker takes none that it cannot begin.",
        ("queue",),
    ),
    Metric(
        "semel_queue_texts",
        "gauge",
        "Texts of open jobs and of requests that have no outcome yet, wherever they are.",
        ("queue",),
    ),
    Metric("semel_queue_work_seconds", "gauge", "Waiting texts divided by the measured texts per second.", ("queue",)),
    Metric("semel_queue_oldest_seconds", "gauge", "Age of the oldest message that no worker has taken.", ("queue",)),
    Metric("semel_jobs", "gauge", "Jobs in the database.", ("status",)),
    Metric(
        "semel_job_seconds",
        "histogram",
        "Time from a job's creation, or its last retry, to its end.",
        ("status",),
        _LONG_SECONDS,
    ),
    Metric(
        "semel_job_first_result_seconds",
        "histogram",
        "Time from a job's creation, or its last retry, to the end of its first chunk; recorded when the job ends.",
        (),
        _LONG_SECONDS,
    ),
    Metric("semel_workers", "gauge", "Workers, by kind of device and status.", ("device", "status")),
    Metric("semel_heartbeat_age_seconds", "gauge", "Age of the oldest heartbeat in a device pool.", ("device",)),
    Metric("semel_cache_entries", "gauge", "Vectors in the cache, counted once per minute.", ("model",)),
    Metric("semel_cache_bytes", "gauge", "Size of the vectors in the cache, without indexes.", ("model",)),
    Metric(
        "semel_cache_lookups_total",
        "counter",
        "Texts that the API looked up in the cache, by result (hit or miss).",
        ("result", "model"),
    ),
    Metric("semel_cache_evictions_total", "counter", "Vectors that this API pruned."),
    Metric(
        "semel_request_texts_total",
        "counter",
        "Texts that the API answered: all texts of requests, and the hits in jobs.",
        ("outcome", "model"),
    ),
    Metric(
        "semel_saved_device_seconds_total",
        "counter",
        "Device time that the hits saved, estimated from the measured texts per second.",
        ("model",),
    ),
    Metric("semel_http_request_seconds", "histogram", "Time until a response began.", ("method", "route", "status")),
    *_SHARED,
)

METRICS = {metric.name: metric for metric in (*_WORKERS, *_API)}
"""Every metric by its name."""


def new_registry() -> CollectorRegistry:
    """A registry that contains prometheus_client's own metrics of the process."""
    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
        registry.register(collector)
    return registry


def counter(name: str, registry: CollectorRegistry) -> Counter:
    """A counter from the table; the caller increases it. Raises KeyError for a name that is not in the table."""
    metric = METRICS[name]
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def histogram(name: str, registry: CollectorRegistry) -> Histogram:
    """A histogram from the table. Raises KeyError for a name that is not in the table."""
    metric = METRICS[name]
    return Histogram(metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets)


class Resent:
    """Counts the chunks that sweeps sent again. Workers and the API sweep; each counts its own sweeps."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._chunks = counter("semel_chunks_resent_total", registry)

    def count(self, *, leases_expired: int, messages_lost: int) -> None:
        """Add the chunks that one sweep sent again, by reason."""
        self._chunks.labels("lease_expired").inc(leases_expired)
        self._chunks.labels("message_lost").inc(messages_lost)


class Read(Collector):
    """Metrics whose values are read elsewhere at each scrape.

    Args:
        read: returns the samples of each metric by its name; called once per scrape.
    """

    def __init__(self, read: Callable[[], Iterable[tuple[str, Iterable[Sample]]]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Family]:
        """Nothing: registering the collector must not read the values, as `collect` would."""
        return []

    @override
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
    return "\n".join(("## Workers", "", _table(_WORKERS), "## API", "", _table(_API)))


def _table(metrics: Sequence[Metric]) -> str:
    rows = ["| name | kind | labels | what |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.help} |" for m in metrics]
    return "\n".join(rows) + "\n"
