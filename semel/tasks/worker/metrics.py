"""The metrics of a worker: counted as it works, or read from its parts when Prometheus scrapes them."""

from collections.abc import Iterable, Mapping

from prometheus_client import start_http_server

from semel.backends.devices.usage import usage_of
from semel.backends.engine import Engine
from semel.cache.claims import RedisClaims
from semel.cache.store import VectorStore
from semel.errors import UnavailableError
from semel.metrics import Read, Resent, Sample, counter, histogram, new_registry
from semel.tasks.jobs.sweep import Swept
from semel.tasks.worker.models import LoadedModels
from semel.values.device import device_kind
from semel.values.text import Outcome


class WorkerMetrics:
    """The metrics of one worker.

    Args:
        device: the full name; its kind becomes the label `device`.
    """

    def __init__(self, device: str) -> None:
        self._device, self._kind = device, device_kind(device)
        self.registry = new_registry()
        self._texts = counter("semel_texts_total", self.registry)
        self._messages = counter("semel_messages_total", self.registry)
        self._resent = Resent(self.registry)
        self._redelivered = counter("semel_redeliveries_total", self.registry).labels(self._kind)
        self._stages = histogram("semel_stage_seconds", self.registry)
        self._batch_texts = histogram("semel_batch_texts", self.registry)
        self._batch_tokens = histogram("semel_batch_tokens", self.registry)

    def watch(self, engine: Engine, models: LoadedModels, claims: RedisClaims, store: VectorStore) -> None:
        """Read the remaining metrics from these parts at each scrape."""
        self.registry.register(Read(lambda: self._read(engine, models, claims, store)))

    def _read(
        self, engine: Engine, models: LoadedModels, claims: RedisClaims, store: VectorStore
    ) -> Iterable[tuple[str, Iterable[Sample]]]:
        stats, usage, here = engine.stats, usage_of(self._device), [self._kind]
        yield "semel_tokens_total", [(here, stats.tokens)]
        yield "semel_padded_tokens_total", [(here, stats.padded_tokens)]
        yield "semel_device_busy_seconds_total", [(here, stats.busy_s)]
        yield "semel_memory_halvings_total", [(here, stats.memory_halvings)]
        yield "semel_memory_bytes", [(here, usage.memory_bytes)]
        yield "semel_memory_total_bytes", [(here, usage.total_bytes)]
        if usage.gpu_utilization is not None:
            yield "semel_gpu_utilization_ratio", [(here, usage.gpu_utilization)]
        yield "semel_model_load_seconds", [([model.spaces[""].model, *here], model.load_s) for model in models.loaded()]
        yield "semel_claims_total", [(["taken"], claims.taken), (["held"], claims.held), (["expired"], claims.expired)]
        yield "semel_cache_verify_failures_total", [([], store.damaged)]

    def count_swept(self, swept: Swept) -> None:
        """Count the chunks that a sweep of this worker makes available again."""
        self._resent.count(leases_expired=swept.leases_expired, messages_lost=swept.messages_lost)

    def redelivered(self) -> None:
        """Count a message that was delivered again because its earlier receiver did not acknowledge it."""
        self._redelivered.inc()

    def observe(self, stage: str, seconds: float) -> None:
        """Record the duration of one stage: queue, tokenise, device or store."""
        self._stages.labels(stage, self._kind).observe(seconds)

    def batch(self, texts: int, padded_tokens: int) -> None:
        """Record the size of a batch on the device."""
        self._batch_texts.labels(self._kind).observe(texts)
        self._batch_tokens.labels(self._kind).observe(padded_tokens)

    def message(self, model: str, outcomes: Mapping[Outcome, int]) -> None:
        """Count a finished message and its texts."""
        self._messages.labels(self._kind).inc()
        for outcome in Outcome:  # all of them: a counter that first appears with a failure shows no increase
            self._texts.labels(outcome.value, model, self._kind).inc(outcomes.get(outcome, 0))

    def serve(self, host: str, port: int) -> None:
        """Serve the metrics from a thread. Raises UnavailableError when the address cannot be used."""
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise UnavailableError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; set SEMEL_METRICS_PORT to a free one, or 0"
            ) from None
