"""What the workers say of themselves, summed up by device pool."""

from collections.abc import Sequence

from semel.api.dialects.openai import Latency, Pool, PoolWorker, WorkerStatus
from semel.tasks.fleet.meter import Work
from semel.tasks.fleet.roster import WorkerCard
from semel.values import device_kind


def pools(live: Sequence[WorkerCard], failed: Sequence[WorkerCard]) -> list[Pool]:
    """One pool for each kind of device that has a worker, or had one that found its device unfit."""
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
"""A pool is as well as the best of its workers."""


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
        texts_per_s=card.texts_per_s,
    )


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
