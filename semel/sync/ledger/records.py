"""The rows of the ledger as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from semel.cache.keys import KEY_BYTES

PAYLOAD_BYTES = 8
"""The digest of a payload has so many: two payloads of one document are the same by chance once in 10^19."""

CHUNK_BYTES = KEY_BYTES + PAYLOAD_BYTES
"""A chunk in the ledger is the key of its text, and the digest of its payload."""


@dataclass(frozen=True)
class Sync:
    """A sync. Times are Unix seconds.

    Attributes:
        source, sink: their addresses, without passwords.
        serving: the id of the collection that answers; None before the first run ended.
        running: whether a run holds its lease now.
    """

    name: str
    source: str
    sink: str
    serving: int | None
    running: bool
    created_at: float


@dataclass(frozen=True)
class Collection:
    """The index of a sync for one model.

    Attributes:
        name: of the collection or table in the sink.
        fingerprint: of the vector space, 32 bytes.
        spec: how its documents are split, and what is kept of them; see `semel.sync.spec`.
        filled_at: the end of the last run that left it in step with the source; None before.
        retired_at: when another collection took its place; None if it serves, or is filled.
        documents, chunks: how many it holds.
    """

    id: int
    sync: str
    name: str
    model: str
    fingerprint: bytes
    dim: int
    spec: Mapping[str, Any]
    created_at: float
    filled_at: float | None
    retired_at: float | None
    documents: int = 0
    chunks: int = 0


@dataclass(frozen=True)
class Written:
    """A document as it is in the index.

    Attributes:
        content: SHA-256 of its text, 32 bytes.
        payload: digest of its fields, 8 bytes.
        chunks: `CHUNK_BYTES` for each chunk, in order.
    """

    id: str
    version: str | None
    content: bytes
    payload: bytes
    chunks: bytes

    @property
    def count(self) -> int:
        """The number of its chunks."""
        return len(self.chunks) // CHUNK_BYTES

    @cached_property
    def entries(self) -> list[bytes]:
        """The entry of each chunk."""
        return [self.chunks[at : at + CHUNK_BYTES] for at in range(0, len(self.chunks), CHUNK_BYTES)]

    @property
    def keys(self) -> list[bytes]:
        """The key of each chunk's text."""
        return [entry[:KEY_BYTES] for entry in self.entries]


@dataclass(frozen=True)
class KnownDocument(Written):
    """A document in the ledger.

    Attributes:
        pending: the number of chunks of a write that may or may not have happened; None if everything is confirmed.
    """

    pending: int | None = None

    @property
    def confirmed(self) -> list[bytes]:
        """The entries of its chunks, if the index is known to hold them."""
        return self.entries if self.pending is None else []

    @property
    def most_chunks(self) -> int:
        """The number of chunks that the index may hold of it."""
        return max(self.count, self.pending or 0)


@dataclass(frozen=True)
class SyncRun:
    """One run of a sync.

    Attributes:
        outcome: `running`, `done`, `incomplete` (some documents failed), `refused` or `failed`.
        report: the plan and what became of it; see `semel.sync.report`.
    """

    id: int
    sync: str
    collection_id: int | None
    outcome: str
    started_at: float
    ended_at: float | None
    report: Mapping[str, Any]
