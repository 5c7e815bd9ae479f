"""What a worker did, counted as it goes; its card carries the figures."""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from semel.values.text import Outcome

_RECENT = 128
"""Latencies that are kept: a beat stays below a kilobyte, and a 99th percentile means something."""


@dataclass(frozen=True)
class Work:
    """Counters since a worker started; those of several workers can be added.

    Attributes:
        requests: messages: chunks of jobs and small requests.
        texts, hits, coalesced, failed: texts in them; found in the cache; computed for an equal one; without a vector.
        computed: texts that went through the device, as its batches end.
        queued_s: sum of the time that messages waited.
        worked_s: sum of the time that they took.
        tokens, padded_tokens: what the device read, and what it computed for that.
        recent_ms: the last latencies, from the queue to the answer.
        last_request_at: Unix seconds.
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
        """The latency that this share of the recent messages stayed below or at; None before the first."""
        ordered = sorted(self.recent_ms)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


@dataclass(frozen=True)
class Message:
    """A chunk or a small request that is done.

    Attributes:
        sent_at, started_at: Unix seconds.
        outcomes: how many texts ended in which way.
    """

    model: str
    sent_at: float | None
    started_at: float
    outcomes: Mapping[Outcome, int]

    @property
    def queued_s(self) -> float:
        """How long it waited; the clocks of two hosts may differ, and less than nothing counts as nothing."""
        return max(0.0, self.started_at - self.sent_at) if self.sent_at else 0.0


class Meter:
    """Counts messages. Thread-safe."""

    def __init__(self) -> None:
        self._work = Work()
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._lock = threading.Lock()

    def record(self, message: Message) -> None:
        """One message is done."""
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
        """The counters, with those of the device."""
        with self._lock:
            recent = list(self._recent)
            return self._work + Work(computed=computed, tokens=tokens, padded_tokens=padded_tokens, recent_ms=recent)
