"""What semel.toml says of a sync: `[syncs.NAME]`."""

import re
from dataclasses import dataclass, field

from semel.errors import BadInputError

SYNC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""A sync's name becomes a part of names in databases, of at most 63 characters in PostgreSQL."""

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


@dataclass(frozen=True)
class ChunkOptions:
    """How long documents are split.

    Attributes:
        tokens: the most tokens of a chunk, special tokens and the prompt included; None for what the model reads.
        overlap: tokens (or characters) at the end of a chunk that the next one repeats, at most.
        characters: the most characters of a chunk, instead of tokens.
    """

    tokens: int | None = None
    overlap: int = 0
    characters: int | None = None


@dataclass(frozen=True)
class SyncEntry:
    """Documents that an index follows.

    Attributes:
        source: a folder, a file of rows (.parquet, .jsonl, .csv …) or a folder of Parquet files, a URL that fsspec
            knows (s3://, gs://, az://, hf://), or the URL of a database, with `query`.
        sink: `parquet:FOLDER/NAME`, `lancedb:FOLDER/NAME`, `postgresql://…/DATABASE?table=NAME`, `qdrant://HOST/NAME`,
            or `qdrant:FOLDER/NAME` for Qdrant's local mode.
        include: patterns of the files of a folder; empty for every file that semel can read.
        model: a name from semel.toml; None for the default model.
        chunk: how long documents are split.
        payload: fields that the index keeps next to each vector: columns of rows, and `path`, `title`, `heading` and
            `modified` of files.
        query: the statement whose rows are the documents of a database.
        id, version, text_field: the columns of rows: what identifies a document; what changes with it, if there is
            such a column; and its text.
        keep: how long the old collection stays after a cutover, for `rollback`, such as `7d`.
        max_delete: a run that would shrink the index by more than this share stops, such as `10%`.
    """

    source: str
    sink: str
    include: tuple[str, ...] = ()
    model: str | None = None
    chunk: ChunkOptions = field(default_factory=ChunkOptions)
    payload: tuple[str, ...] = ()
    query: str | None = None
    id: str = "id"
    version: str | None = None
    text_field: str = "text"
    keep: str = "7d"
    max_delete: str = "10%"


def seconds_of(duration: str) -> float:
    """The seconds of a duration such as `90s`, `12h` or `7d`. Raises BadInputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", duration.strip())
    if not found:
        raise BadInputError(f"{duration!r} is no duration; write a number and s, m, h, d or w, such as 7d")
    return float(found[1]) * _UNITS_S[found[2]]


def share_of(text: str) -> float:
    """The share in a percentage such as `10%`, 0 to 1. Raises BadInputError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if not found or not 0 <= float(found[1]) <= 100:
        raise BadInputError(f"{text!r} is no percentage; write a number from 0 to 100 and %, such as 10%")
    return float(found[1]) / 100
