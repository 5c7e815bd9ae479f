"""The messages of small requests: the request with its texts, and the answer."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from semel.values.text import Input, ItemError, as_input

Reading: TypeAlias = Literal["count", "spell", "bare"]
"""What READ_TEXTS reports for each text: `count` for [tokens, truncated], `spell` for its tokens one by one, `bare` for
the same without special tokens."""


@dataclass(frozen=True)
class Request:
    """A request as it travels to a worker: ~100 bytes and the texts or pairs.

    Attributes:
        reply_to: the doorbell that receives the answer.
        fingerprint: of the vector space, in hex.
        sent_at: Unix seconds.
        reading: what READ_TEXTS reports; None for EMBED_TEXTS.
        passed_on: how many workers have passed the request on because they could not serve it.
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
        """The request in a Celery message; lists become pairs again."""
        return cls(**{**message, "texts": [as_input(item) for item in message["texts"]]})

    @property
    def shown(self) -> str:
        """The description that Flower shows, without the texts."""
        return f"({len(self.texts)} texts, request {self.id})"

    def to_message(self) -> dict[str, object]:
        """The request as a Celery message."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """The outcome of a request; the vectors themselves are in the cache.

    Attributes:
        computed, coalesced: positions of the texts in the request.
        errors: position → why that text failed.
        error: why the whole request failed.
        readings: how the model reads each text, if the request asked for it.
        seconds: time that the worker spent on the request.
    """

    computed: list[int] = field(default_factory=list)
    coalesced: list[int] = field(default_factory=list)
    errors: dict[int, ItemError] = field(default_factory=dict)
    error: ItemError | None = None
    readings: list[Any] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> str:
        """The answer as it travels through Redis."""
        errors = {str(i): [e.code, e.message] for i, e in self.errors.items()}
        whole = [self.error.code, self.error.message] if self.error else None
        return json.dumps([self.computed, self.coalesced, errors, whole, self.readings, self.seconds])

    @classmethod
    def from_json(cls, text: bytes | str) -> "Answer":
        """The answer that `to_json` wrote."""
        computed, coalesced, errors, whole, readings, seconds = json.loads(text)
        return cls(
            computed,
            coalesced,
            {int(i): ItemError(*pair) for i, pair in errors.items()},
            ItemError(*whole) if whole else None,
            readings,
            seconds,
        )
