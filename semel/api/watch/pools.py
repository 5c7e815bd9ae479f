"""What the workers report about themselves, summed up by device pool."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field

from semel.tasks.fleet.card import WorkerCard
from semel.tasks.fleet.meter import Work
from semel.values.device import device_kind

WorkerStatus: TypeAlias = Literal["healthy", "standby", "loading", "failed"]
"""healthy: a model is in memory. standby: ready, and loads a model when the first work arrives. failed: see `why`."""


class Latency(BaseModel):
    """Milliseconds of a message from queueing to completion; null before the first message."""

    avg: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class PoolWorker(BaseModel):
    """One worker: a process with one device."""

    id: str
    device: str
    about: str = Field(description="Name and memory of the device.")
    host: str
    pid: int
    status: WorkerStatus
    why: str = Field(description="Why this device and dtype; for a failed worker, what is wrong.")
    dtype: str
    models: list[str]
    loaded: list[str] = Field(description="Models in memory.")
    started_at: float
    load_time_s: float
    memory_usage_bytes: int
    memory_halvings: int = Field(description="How often memory ran out and batches were halved.")
    total_requests: int
    held_texts: int = Field(description="Texts of requests that the worker has taken and not answered yet.")
    texts_per_s: float


class Pool(BaseModel):
    """The workers of one kind of device. Percentiles cover the last 128 messages of each worker."""

    device: str
    status: WorkerStatus = Field(description="The status of its best worker.")
    why: str
    models: list[str]
    load_time_s: float
    memory_usage_bytes: int
    last_request: float | None = Field(description="When the last message was finished, in Unix seconds.")
    total_requests: int
    texts_per_s: float
    latency_ms: Latency
    queue_time_ms: float | None
    batch_efficiency: float | None = Field(description="Tokens read divided by tokens computed with padding.")
    error_rate: float | None = Field(description="Share of the texts in this pool's messages that failed.")
    cache_hit_rate: float | None = Field(
        description="Share of the texts in this pool's messages that the cache had; only jobs send such texts."
    )
    gpu_utilization: float | None = Field(description="0 to 1; null where the driver does not report it.")
    workers: list[PoolWorker]


def pools(live: Sequence[WorkerCard], failed: Sequence[WorkerCard]) -> list[Pool]:
    """One pool for each kind of device with a live worker, or with a worker that found its device unfit."""
    working = {(card.device, card.host) for card in live}
    cards = [*live, *(card for card in failed if (card.device, card.host) not in working)]
    kinds = dict.fromkeys(device_kind(card.device) for card in cards)
    return [_pool(kind, [card for card in cards if device_kind(card.device) == kind]) for kind in sorted(kinds)]


def _pool(kind: str, cards: list[WorkerCard]) -> Pool:
    workers = [_worker(card) for card in cards]
    best = min(workers, key=lambda worker: _ORDER.index(worker.status))
    work = sum((card.work for card in cards), start=Work())
    busy = [card.gpu_utilization for card in cards if card.gpu_utilization is not None]
    return Pool(
        device=kind,
        status=best.status,
        why=best.why,
        workers=workers,
        models=sorted({name for card in cards for name in card.models}),
        load_time_s=max(card.load_s for card in cards),
        memory_usage_bytes=sum(card.memory_bytes for card in cards),
        last_request=work.last_request_at,
        total_requests=work.requests,
        texts_per_s=sum(card.texts_per_s for card in cards),
        latency_ms=Latency(
            avg=_share((work.queued_s + work.worked_s) * 1000, work.requests),
            p50=work.latency_ms(0.5),
            p95=work.latency_ms(0.95),
            p99=work.latency_ms(0.99),
        ),
        queue_time_ms=_share(work.queued_s * 1000, work.requests),
        batch_efficiency=_share(work.tokens, work.padded_tokens),
        error_rate=_share(work.failed, work.texts),
        cache_hit_rate=_share(work.hits, work.texts),
        gpu_utilization=_share(sum(busy), len(busy)),
    )


_ORDER = ("healthy", "standby", "loading", "failed")
"""Worker statuses, the best first; a pool has the status of its best worker."""


def _worker(card: WorkerCard) -> PoolWorker:
    status: WorkerStatus = "failed" if card.state == "failed" else "loading"
    if card.state == "ready":
        status = "healthy" if card.loaded else "standby"
    return PoolWorker(
        id=card.id,
        device=card.device,
        about=card.about,
        host=card.host,
        pid=card.pid,
        status=status,
        why=card.why,
        dtype=card.dtype,
        models=card.models,
        loaded=card.loaded,
        started_at=card.started_at,
        load_time_s=card.load_s,
        memory_usage_bytes=card.memory_bytes,
        memory_halvings=card.memory_halvings,
        total_requests=card.work.requests,
        held_texts=card.held_texts,
        texts_per_s=card.texts_per_s,
    )


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
