"""What travels: a small request with its texts, and the answer that comes back."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from semel.values.text import Input, ItemError, as_input

Reading: TypeAlias = Literal["count", "spell", "bare"]


@dataclass(frozen=True)
class Request:
    """What travels to a worker: ~100 bytes and the texts or pairs.

    Attributes:
        sent_at: Unix seconds.
        passed_on: how many workers could not serve it.
        reading: for READ_TEXTS: `count` for [tokens, truncated] of each text, `spell` for its tokens one by one,
            `bare` for the same without special tokens.
    """

    id: str
    reply_to: str
    model: str
    prompt_name: str
    fingerprint: str
    texts: Sequence[Input]
    sent_at: float
    reading: Reading | None = None
    passed_on: int = 0

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Request":
        return cls(**{**message, "texts": [as_input(item) for item in message["texts"]]})

    @property
    def shown(self) -> str:
        """What Flower shows: never the texts."""
        return f"({len(self.texts)} texts, request {self.id})"

    def to_message(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """How a request ended; the vectors themselves are in the cache.

    Attributes:
        computed, coalesced: positions in the request.
        errors: position → why.
        error: the whole request failed.
        seconds: what the worker took for it.
        readings: how the model reads each text, when that was asked.
    """

    computed: list[int] = field(default_factory=list)
    coalesced: list[int] = field(default_factory=list)
    errors: dict[int, ItemError] = field(default_factory=dict)
    error: ItemError | None = None
    readings: list[Any] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> str:
        errors = {str(i): [e.code, e.message] for i, e in self.errors.items()}
        whole = [self.error.code, self.error.message] if self.error else None
        return json.dumps([self.computed, self.coalesced, errors, whole, self.readings, self.seconds])

    @classmethod
    def from_json(cls, text: bytes | str) -> "Answer":
        computed, coalesced, errors, whole, readings, seconds = json.loads(text)
        return cls(
            computed,
            coalesced,
            {int(i): ItemError(*pair) for i, pair in errors.items()},
            ItemError(*whole) if whole else None,
            readings,
            seconds,
        )
