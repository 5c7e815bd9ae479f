"""The contents of the rows of chunks, and how they are packed and unpacked."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import zstandard

from semel.cache.keys import KEY_BYTES, unpack_keys
from semel.values.job import JobStatus
from semel.values.read_counts import ReadCounts
from semel.values.text import Extra, Input, ItemError, Lane, Outcome, as_input
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Found

OUTCOME_CODES = {
    Outcome.HIT: ord("h"),
    Outcome.COMPUTED: ord("c"),
    Outcome.COALESCED: ord("o"),
    Outcome.FAILED: ord("f"),
}
"""The byte that represents an outcome in a chunk's row."""

CODE_OUTCOMES = {code: outcome for outcome, code in OUTCOME_CODES.items()}
"""The outcome of each byte."""

NO_KEY = bytes(KEY_BYTES)
"""Takes the place of a missing key in the packed keys, so that the others keep their positions."""

WORKER_LOST = "worker_lost"
"""The code of a text that ended the workers which computed it."""

NO_TEXTS = b""
"""The payload of a chunk whose texts all have a vector."""

ACTIVE = (JobStatus.VALIDATING.value, JobStatus.IN_PROGRESS.value)
"""The states of a job whose chunks may be worked on."""

Place = tuple[str, int]
"""A chunk: the id of its job, and its position in that job."""


class ChunkState(StrEnum):
    """The states of a chunk: PENDING → SENT → RUNNING → DONE.

    SENT: Redis has a message for it. RUNNING: a worker holds a lease on it. CANCELLED: its job ended before it ran.
    """

    PENDING = "pending"
    SENT = "sent"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class NewChunk:
    """A slice of a job that is being submitted. Item i has the key `keys[i]`, or NO_KEY and `errors[i]`.

    Attributes:
        weight: its work as a part of a full chunk: 1.0 for a chunk of the largest size.
    """

    first_index: int
    keys: list[bytes]
    texts: list[Input]
    errors: dict[int, ItemError] = field(default_factory=dict)
    extras: Sequence[Extra | None] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class ChunkWork:
    """A chunk, as the worker that leased it receives it.

    Attributes:
        attempts, tries: how often it was leased, and begun, this time included.
        errors: position in the chunk → why this text cannot be embedded.
        payload: the packed texts, see `texts`.
        sent_at: when its message was sent, Unix seconds.
        before: outcomes of an earlier run, of which only failed texts run again. Empty for a first run.
        suspects: positions of the texts that were computed when the chunk was last lost.
        fingerprint, variant: of the job's vector space; the fingerprint is that without the variant.
    """

    job_id: str
    position: int
    owner: str
    attempts: int
    tries: int
    first_index: int
    keys: list[bytes]
    errors: dict[int, ItemError]
    payload: bytes
    model: str
    prompt_name: str
    fingerprint: bytes
    lane: Lane
    truncate: bool
    sent_at: float | None = None
    before: Sequence[Outcome] = ()
    suspects: range = range(0)
    variant: Variant = AS_DEFINED

    @cached_property
    def kept(self) -> set[int]:
        """Positions that keep their outcome from the earlier run."""
        return kept_outcomes(self.before, self.errors)

    @property
    def place(self) -> Place:
        """Which chunk this is."""
        return self.job_id, self.position

    @cached_property
    def settled(self) -> set[int]:
        """Positions with nothing to compute: they keep their outcome, or have an error."""
        return self.kept | self.errors.keys()

    def texts(self) -> list[Input]:
        """The texts, unpacked; only needed when the cache lacks some of them."""
        return unpack_texts(self.payload)


@dataclass(frozen=True)
class Finished:
    """A chunk that a worker has finished.

    Attributes:
        outcomes: one for each text of the chunk.
        errors: position in the chunk → why this text has no vector.
        read: how much the model read of the texts that this run settled.
    """

    work: ChunkWork
    outcomes: Sequence[Outcome]
    errors: Mapping[int, ItemError]
    read: ReadCounts

    @property
    def settled(self) -> list[Outcome]:
        """The outcomes of the texts that this run settled."""
        return [outcome for i, outcome in enumerate(self.outcomes) if i not in self.work.kept]

    def row(self) -> dict[str, Any]:
        """The values of the chunk's row, and its place as `of_job` and `at`."""
        place = {"of_job": self.work.job_id, "at": self.work.position, "payload": self.work.payload}
        return place | done_values(self.outcomes, self.errors)


@dataclass(frozen=True)
class Added:
    """Added texts that are done, and those with a vector: a chunk with one missing text is not done as a whole."""

    done: int
    present: int


@dataclass(frozen=True)
class ChunkResult:
    """A finished chunk, or a slice of it: key and outcome of each item, and errors by position in the slice.

    Attributes:
        extras: one for each item.
        skipped: number of texts in the payload that come before the slice.
    """

    first_index: int
    keys: list[bytes]
    outcomes: list[Outcome]
    errors: dict[int, ItemError]
    payload: bytes
    extras: Sequence[Extra | None]
    skipped: int = 0

    def texts(self) -> list[Input] | None:
        """The texts, unpacked, for vectors that the cache has lost since (damaged rows); None if they were not kept."""
        part = slice(self.skipped, self.skipped + len(self.keys))
        return None if self.payload == NO_TEXTS else unpack_texts(self.payload)[part]


def chunk_result(row: Any) -> ChunkResult:
    """The finished chunk that a row represents."""
    keys = unpack_keys(row.packed_keys)
    extras, errors = unpack_extras(row.extras, len(keys)), unpack_errors(row.errors_json)
    return ChunkResult(row.first_index, keys, outcomes_of(row), errors, row.payload, extras)


def parts_of(found: Found, chunks: Sequence[NewChunk] | Sequence[ChunkResult]) -> Iterator[Found]:
    """The rows of the cache for each chunk.

    Args:
        found: for the keys of all chunks, one after the other.
    """
    at = 0
    for chunk in chunks:
        part = slice(at, at + len(chunk.keys))
        at = part.stop
        yield found.part(part)


def is_all_done(chunk: NewChunk, found: Found) -> bool:
    """Whether each text of a new chunk is in the cache or bad, so that no worker is needed.

    Args:
        found: the rows of the cache for the keys of the chunk.
    """
    return all(present or i in chunk.errors for i, present in enumerate(found.present.tolist()))


def chunk_row(job_id: str, position: int, chunk: NewChunk) -> dict[str, Any]:
    """The row of a new chunk."""
    return {
        "job_id": job_id,
        "position": position,
        "state": ChunkState.PENDING,
        "attempts": 0,
        "first_index": chunk.first_index,
        "texts": len(chunk.keys),
        "weight": chunk.weight,
        "sent_at": None,
        "errors_json": pack_errors(chunk.errors),
        "packed_keys": b"".join(chunk.keys),
        "payload": pack(chunk.texts),
        "extras": pack(chunk.extras) if any(chunk.extras) else None,
    }


def done_values(outcomes: Sequence[Outcome], errors: Mapping[int, ItemError]) -> dict[str, Any]:
    """The values that a chunk's row gets when the chunk is done.

    Its texts are not needed any more, except to run those again that failed.
    """
    values = {
        "state": ChunkState.DONE,
        "lease_owner": None,
        "outcomes": bytes(OUTCOME_CODES[o] for o in outcomes),
        "errors_json": pack_errors(errors),
    }
    return values if errors else values | {"payload": NO_TEXTS}


def kept_outcomes(before: Sequence[Outcome], errors: Mapping[int, ItemError]) -> set[int]:
    """Positions that keep their outcome when a chunk is retried: they did not fail, or have a permanent error."""
    return {i for i, outcome in enumerate(before) if outcome is not Outcome.FAILED or i in errors}


def outcomes_of(row: Any) -> list[Outcome]:
    """The outcomes in a chunk's row; empty if the chunk has not run."""
    return [CODE_OUTCOMES[code] for code in row.outcomes or b""]


def pack(values: Sequence[Any]) -> bytes:
    """The values as a JSON list, compressed with zstd."""
    try:
        text = json.dumps(values, ensure_ascii=False, default=str).encode()  # str: dates and other types of Parquet
    except UnicodeEncodeError:  # a lone surrogate in a field of the row
        text = json.dumps(values, default=str).encode()
    return zstandard.compress(text, 1)


def unpack_texts(payload: bytes) -> list[Input]:
    """The texts or pairs in a chunk's row; "" for a text that could not be read."""
    return [as_input(item) for item in json.loads(zstandard.decompress(payload))]


def unpack_extras(packed: bytes | None, count: int) -> list[Extra | None]:
    """The extra fields of each of the `count` texts in a chunk's row."""
    if packed is None:
        return [None] * count
    return [None if pair is None else Extra(*pair) for pair in json.loads(zstandard.decompress(packed))]


def pack_errors(errors: Mapping[int, ItemError]) -> str:
    """Errors by position, as JSON."""
    return json.dumps({str(i): [e.code, e.message] for i, e in errors.items()})


def unpack_errors(text: str) -> dict[int, ItemError]:
    """The errors in a chunk's row: position in the chunk → why this text has no vector."""
    return {int(i): ItemError(*pair) for i, pair in json.loads(text).items()}
