"""The messages of small requests: the request with its texts, and the answer."""

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from semel.values.text import Input, ItemError, as_input, size_of

Reading: TypeAlias = Literal["count", "spell", "bare"]
"""What READ_TEXTS reports for each text: `count` for [tokens, truncated], `spell` for its tokens one by one, `bare` for
the same without special tokens."""


@dataclass(frozen=True)
class Request:
    """One request in a message: ~100 bytes and the texts or pairs.

    Attributes:
        texts: distinct.
        sent_at: Unix seconds of the sender's clock.
        expires_at: nobody waits after this; Unix seconds of Redis' clock, see `RedisClock`.
        deaths: how many workers have died, or lost their device, while they worked on it. From the first one on, the
            request has a message of its own.
    """

    id: str
    texts: Sequence[Input]
    sent_at: float
    expires_at: float
    deaths: int = 0

    @property
    def size(self) -> int:
        """Characters of its texts."""
        return sum(size_of(text) for text in self.texts)


@dataclass(frozen=True)
class RequestMessage:
    """The requests of one vector space that travel together.

    Attributes:
        reply_to: the doorbell that receives the answers.
        fingerprint: of the vector space without its variant, in hex.
        reading: what READ_TEXTS reports; None for EMBED_TEXTS.
        passed_on: how many workers have passed the message on because they could not serve it.
        namespace: of the keys under which the vectors are stored; empty for the keys that all share.
        variant: of the vector space, as `Variant.to_json` writes it.
    """

    reply_to: str
    model: str
    prompt_name: str
    fingerprint: str
    requests: Sequence[Request]
    reading: Reading | None = None
    passed_on: int = 0
    namespace: str = ""
    variant: str = ""

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "RequestMessage":
        """Read a Celery message; lists become pairs again, and fields that this version does not know are ignored."""
        requests = [
            Request(**{**_known(Request, each), "texts": [as_input(item) for item in each["texts"]]})
            for each in message["requests"]
        ]
        return cls(**{**_known(cls, message), "requests": requests})

    @property
    def shown(self) -> str:
        """The description that Flower shows, without the texts."""
        texts = sum(len(request.texts) for request in self.requests)
        return f"({len(self.requests)} requests, {texts} texts, the first is {self.requests[0].id})"

    def to_message(self) -> dict[str, object]:
        """This message for Celery."""
        return asdict(self)


def _known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in kind.__dataclass_fields__}


@dataclass(frozen=True)
class Row:
    """A new row of the cache, with the bits that were stored.

    Attributes:
        vector: the bytes of float32 (dim,), the lowest byte first.
        tokens: that the model read.
        truncated: whether the text was cut.
    """

    vector: bytes
    tokens: int
    truncated: bool

    def to_json(self) -> list[object]:
        """The row as a part of an answer."""
        return [b64encode(self.vector).decode(), self.tokens, self.truncated]

    @classmethod
    def from_json(cls, values: list[Any]) -> "Row":
        """The row that `to_json` wrote."""
        vector, tokens, truncated = values
        return cls(b64decode(vector), tokens, truncated)


@dataclass(frozen=True)
class Answer:
    """The outcome of a request; the vectors themselves are in the cache.

    Attributes:
        computed, coalesced: positions of the texts in the request.
        rows: position → the row that was stored, so that a small answer need not be read from the cache.
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
    rows: dict[int, Row] = field(default_factory=dict)

    def to_json(self, *, with_rows: bool = True) -> str:
        """The answer as it travels through Redis."""
        errors = {str(i): [e.code, e.message] for i, e in self.errors.items()}
        whole = [self.error.code, self.error.message] if self.error else None
        rows = {str(i): row.to_json() for i, row in self.rows.items()} if with_rows else {}
        return json.dumps([self.computed, self.coalesced, errors, whole, self.readings, self.seconds, rows])

    @classmethod
    def from_json(cls, text: bytes | str) -> "Answer":
        """The answer that `to_json` wrote."""
        computed, coalesced, errors, whole, readings, seconds, *newer = json.loads(text)
        rows = newer[0] if newer else {}  # workers of an older version send none
        return cls(
            computed,
            coalesced,
            {int(i): ItemError(*pair) for i, pair in errors.items()},
            ItemError(*whole) if whole else None,
            readings,
            seconds,
            {int(i): Row.from_json(row) for i, row in rows.items()},
        )
