"""Counters of the work that a worker has done; its card publishes them."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from semel.values.text import Outcome

_RECENT = 128
"""Number of latencies kept: a heartbeat stays below a kilobyte, and a 99th percentile is still meaningful."""


@dataclass(frozen=True)
class Work:
    """Counters since a worker started; add those of several workers with `+`.

    Attributes:
        requests: messages, which are chunks of jobs and small requests.
        texts: texts in these messages.
        hits, coalesced, failed: texts found in the cache, computed for an equal text, and left without a vector.
        computed: texts that went through the device; counted as its batches end.
        queued_s: total time that the messages waited in the queue.
        worked_s: total time that the worker spent on them.
        tokens, padded_tokens: tokens in the texts, and tokens that the device computed including padding.
        recent_ms: the latest latencies, from sending the message to its answer, in milliseconds.
        last_request_at: when the last message was finished, Unix seconds.
    """

    requests: int = 0
    texts: int = 0
    hits: int = 0
    coalesced: int = 0
    failed: int = 0
    computed: int = 0
    queued_s: float = 0.0
    worked_s: float = 0.0
    tokens: int = 0
    padded_tokens: int = 0
    recent_ms: Sequence[float] = field(default_factory=list)
    last_request_at: float | None = None

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.requests + other.requests,
            self.texts + other.texts,
            self.hits + other.hits,
            self.coalesced + other.coalesced,
            self.failed + other.failed,
            self.computed + other.computed,
            self.queued_s + other.queued_s,
            self.worked_s + other.worked_s,
            self.tokens + other.tokens,
            self.padded_tokens + other.padded_tokens,
            [*self.recent_ms, *other.recent_ms],
            max((at for at in (self.last_request_at, other.last_request_at) if at), default=None),
        )

    def latency_ms(self, share: float) -> float | None:
        """The latency that `share` (0 to 1) of the recent messages did not exceed; None before the first message."""
        ordered = sorted(self.recent_ms)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


@dataclass(frozen=True)
class Message:
    """A finished chunk or small request.

    Attributes:
        sent_at, started_at: Unix seconds; `sent_at` is None if unknown.
        outcomes: number of texts by outcome.
    """

    model: str
    sent_at: float | None
    started_at: float
    outcomes: Mapping[Outcome, int]

    @property
    def queued_s(self) -> float:
        """Time in the queue, at least 0: the clocks of the sender and the worker may differ."""
        return max(0.0, self.started_at - self.sent_at) if self.sent_at else 0.0


class Meter:
    """Counts finished messages. Thread-safe."""

    def __init__(self) -> None:
        self._work = Work()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()

    def record(self, message: Message) -> None:
        """Count one finished message."""
        now = time.time()
        worked_s = max(0.0, now - message.started_at)
        outcomes = message.outcomes
        with self._lock:
            self._recent.append(round((message.queued_s + worked_s) * 1000, 2))
            self._work += Work(
                1,
                sum(outcomes.values()),
                outcomes.get(Outcome.HIT, 0),
                outcomes.get(Outcome.COALESCED, 0),
                outcomes.get(Outcome.FAILED, 0),
                queued_s=message.queued_s,
                worked_s=worked_s,
                last_request_at=now,
            )

    def work(self, *, computed: int, tokens: int, padded_tokens: int) -> Work:
        """The counters so far, together with the given counters of the device."""
        with self._lock:
            recent = list(self._recent)
            return self._work + Work(computed=computed, tokens=tokens, padded_tokens=padded_tokens, recent_ms=recent)
