"""Documents: what a source has, and what becomes of it in the index."""

import hashlib
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from semel.rows.record import id_of
from semel.sync.ledger.records import PAYLOAD_BYTES
from semel.values.text import lone_surrogate

_CHUNK_IDS = UUID("5e3e1000-0000-4000-8000-000000000000")
"""The name space of the ids of chunks."""

Payload = Mapping[str, Any]
"""Field → value as in JSON."""


@dataclass(frozen=True)
class Document:
    """A document with its text.

    Attributes:
        id: identifies it in its source.
        version: changes whenever the document may have changed; None if the source has nothing of that kind.
        fields: what the index can keep of it.
        markdown: whether its text is Markdown.
    """

    id: str
    version: str | None
    text: str
    fields: Payload = field(default_factory=dict)
    markdown: bool = False


@dataclass(frozen=True)
class Listed:
    """A document as a source lists it.

    Attributes:
        id: None if it cannot be read.
        document: its content, if the source has it at hand; otherwise the source's `read` returns it.
        error: why it cannot be read.
    """

    id: str | None
    version: str | None = None
    document: Document | None = None
    error: str | None = None


@dataclass(frozen=True)
class Chunk:
    """A part of a document.

    Attributes:
        key: of its text in the cache, 32 bytes.
        payload: what the index keeps of it.
    """

    key: bytes
    text: str
    payload: Payload

    @cached_property
    def entry(self) -> bytes:
        """The chunk as the ledger records it."""
        return self.key + payload_digest(self.payload)


@dataclass(frozen=True)
class Draft:
    """A document that is ready for the index.

    Attributes:
        content: SHA-256 of its text, 32 bytes.
        payload: digest of the fields that the index keeps, 8 bytes.
    """

    id: str
    version: str | None
    content: bytes
    payload: bytes
    chunks: Sequence[Chunk]

    def fresh(self, entries: Sequence[bytes]) -> list[int]:
        """The numbers of the chunks whose text differs from that of an older state's entries."""
        return [n for n, chunk in enumerate(self.chunks) if n >= len(entries) or not entries[n].startswith(chunk.key)]


def chunk_id(sync: str, document: str, number: int) -> UUID:
    """The id of a chunk in every sink: the same in each run, so that every write can be repeated."""
    return uuid.uuid5(_CHUNK_IDS, f"{sync}\0{document}\0{number}")


def document_id(value: Any) -> str | None:
    """The id of a document in a field; None if there is none, or one that cannot be stored."""
    found = id_of(value)
    if found is None or found == "" or lone_surrogate(str(found)) or "\0" in str(found):
        return None
    return str(found)


def content_digest(text: str) -> bytes:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


def payload_digest(payload: Payload) -> bytes:
    """The digest of a payload, of `PAYLOAD_BYTES`."""
    text = json.dumps(payload, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=PAYLOAD_BYTES).digest()


def json_value(value: Any) -> Any:
    """A field's value as JSON has it; times are ISO 8601, other types of databases are text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): json_value(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(each) for each in value]
    return value.hex() if isinstance(value, bytes) else str(value)
