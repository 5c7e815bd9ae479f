"""A row of a file, and the text in it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from semel.values.text import lone_surrogate, longer_than

Id: TypeAlias = str | int | float
"""What identifies a row for its owner."""

_UUID_BYTES = 16


@dataclass(frozen=True)
class Record:
    """A row as it is in the file.

    Attributes:
        where: file and line.
        fields: its fields.
        error: why it has no fields; None if it has.
    """

    where: str
    fields: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Item:
    """One input, readable or not.

    Attributes:
        index: position in the input, from 0; unreadable inputs count too, so that no position shifts.
        text: the text; None if it cannot be read.
        where: file and line.
        id: the row's `id` field, or the file's name in a folder.
        error: why the text cannot be read; None if it can.
        fields: the row, if it was read as a whole.
    """

    index: int
    text: str | None
    where: str
    id: Id | None = None
    error: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What is read of each row.

    Attributes:
        required: fields that a table must have; a bare string, or a line of a .txt file, becomes the first of them.
        columns: the only columns to read, if the format allows it; None for all.
        max_text_bytes: a line of a .jsonl or .txt file may have at most twice this many bytes.
        isolate: a stranger made the file: a format whose reader can crash is read in a process of its own.
        max_bytes: a compressed file may hold this many bytes; None for any number.
    """

    required: Sequence[str]
    columns: Sequence[str] | None
    max_text_bytes: int
    isolate: bool = False
    max_bytes: int | None = None

    @property
    def longest_line(self) -> int:
        """In bytes."""
        return 2 * self.max_text_bytes


def id_of(value: Any) -> Id | None:
    """The id in a row's field: as it is, or as text for the types of Parquet and for objects.

    Whole numbers that a table holds as floats, because some are missing, stay whole; a missing one is None.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == _UUID_BYTES else value.hex()
    if isinstance(value, dict | list):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def why_unreadable(fields: dict[str, Any], name: str, limit: int) -> str | None:
    """Why a row's text cannot be embedded; None if it can.

    Args:
        name: the field of the text.
        limit: characters that a text may have.
    """
    text = fields.get(name)
    if name not in fields:
        return f"no field {name!r}"
    if text is None:
        return f"field {name!r} is null"
    if not isinstance(text, str):
        return f"field {name!r} is {type(text).__name__}, not a string"
    if not text:
        return "the text is empty"
    if len(text) > limit:
        return f"the text {longer_than(limit)}"
    surrogate = lone_surrogate(text)
    return f"the text contains {surrogate}" if surrogate else None
