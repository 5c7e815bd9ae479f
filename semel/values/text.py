"""Texts and pairs: what a model reads, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from semel.errors import SemelError


class Pair(NamedTuple):
    """What a cross-encoder reads; its one number is the score of the document for the query."""

    query: str
    document: str


Input: TypeAlias = str | Pair
"""What a model reads: a text for an embedding model, a pair for a cross-encoder. In JSON a pair is a list of two."""


def as_input(value: Any) -> Input:
    """A text or pair, as JSON brought it."""
    return Pair(*value) if isinstance(value, list) else value


def size_of(item: Input) -> int:
    """Characters."""
    return len(item) if isinstance(item, str) else len(item.query) + len(item.document)


class Lane(StrEnum):
    """How urgent a text is; interactive goes before bulk."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Outcome(StrEnum):
    """What became of a text.

    HIT: the cache had it. COMPUTED: this call computed it. COALESCED: it was missing, and somebody else's
    computation (or an equal text beside it in this call) gave the vector. FAILED: see the item's error.
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
        """An error that was raised, as the reason of one text or job."""
        return cls(error.code, str(error))


class Extra(NamedTuple):
    """What a row brought beside its text, and its result carries on."""

    id: Any
    metadata: dict[str, Any]


def lone_surrogate(text: str) -> str | None:
    """The first half of a UTF-16 pair that stands alone in `text`, with its position; None when there is none.

    Such a text cannot be encoded as UTF-8, so no key, no database and no answer can carry it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x} at character {error.start})"
    return None


def longer_than(limit: int) -> str:
    """The reason for refusing a text that is longer than the server accepts; `limit` is in characters."""
    return f"is longer than {limit} characters (SEMEL_MAX_TEXT_BYTES)"
