"""Texts and pairs, which are the inputs of a model, and their outcomes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from semel.errors import SemelError


class Pair(NamedTuple):
    """The input of a cross-encoder, which scores the document's relevance to the query."""

    query: str
    document: str


Input: TypeAlias = str | Pair
"""The input of a model: a text for an embedding model, a pair for a cross-encoder. In JSON a pair is a list of two."""


def as_input(value: Any) -> Input:
    """Convert a value from JSON: a list becomes a `Pair`."""
    return Pair(*value) if isinstance(value, list) else value


def size_of(item: Input) -> int:
    """Characters of a text, or of both parts of a pair."""
    return len(item) if isinstance(item, str) else len(item.query) + len(item.document)


class Lane(StrEnum):
    """The urgency of a text; interactive texts are computed before bulk ones."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Outcome(StrEnum):
    """What became of a text.

    HIT: the cache had its vector. COMPUTED: this call computed it. COALESCED: it was missing, and another call's
    computation (or that of an equal text in this call) provided it. FAILED: see the item's error.
    """

    HIT = "hit"
    COMPUTED = "computed"
    COALESCED = "coalesced"
    FAILED = "failed"


@dataclass(frozen=True)
class ItemError:
    """Why one text has no vector."""

    code: str
    message: str

    @classmethod
    def of(cls, error: SemelError) -> "ItemError":
        """The code and message of an exception."""
        return cls(error.code, str(error))


class Extra(NamedTuple):
    """The other fields of a row, which its result carries along."""

    id: Any
    metadata: dict[str, Any]


def lone_surrogate(text: str) -> str | None:
    """Describe the first half of a UTF-16 pair that stands alone in `text`; None if there is none.

    A text with one cannot be encoded as UTF-8, so no key, no database and no answer can contain it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x} at character {error.start})"
    return None


def longer_than(limit: int) -> str:
    """The reason for refusing a text that is longer than the server accepts; `limit` is in characters."""
    return f"is longer than {limit} characters (SEMEL_MAX_TEXT_BYTES)"
