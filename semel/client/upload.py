"""Texts as the lines of an upload, encoded while they are sent."""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from semel.errors import BadInputError

_BLOCK_BYTES = 256 << 10
"""Lines are joined to blocks of this size, because one write per line would be slow."""


NDJSON = {"content-type": "application/x-ndjson"}
"""The header of an upload."""


def ignore(_: object) -> None:
    """Do nothing: the default for callbacks that report progress."""


_AS_STRINGS = (date, time, timedelta, Decimal, UUID, PurePath, Enum)


def _to_json(value: Any) -> object:
    """Convert NumPy's numbers to JSON's, and dates, decimals and the like to strings, as the server does.

    Raises BadInputError for any other object, whose string is hardly what its owner wants to embed.
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, _AS_STRINGS):
        return str(value)
    raise BadInputError(f"a row has a value of type {type(value).__name__}, which JSON cannot hold; send its text")


def as_lines(
    texts: Iterable[str | Mapping[str, Any]], on_sent: Callable[[int], None], text_field: str = "text"
) -> Iterator[bytes]:
    """Encode texts as NDJSON, in blocks.

    Args:
        texts: texts, or rows.
        on_sent: called after each block with the number of texts so far.
        text_field: the field of a row that holds a bare text.
    """
    blocks = _Blocks(on_sent, text_field)
    for text in texts:
        yield from blocks.add(text)
    yield blocks.rest()


async def as_lines_async(
    texts: AsyncIterable[str | Mapping[str, Any]], on_sent: Callable[[int], None], text_field: str = "text"
) -> AsyncIterator[bytes]:
    """As `as_lines`, for texts that arrive while they are sent."""
    blocks = _Blocks(on_sent, text_field)
    async for text in texts:
        for block in blocks.add(text):
            yield block
    yield blocks.rest()


class _Blocks:
    """Joins lines to blocks."""

    def __init__(self, on_sent: Callable[[int], None], text_field: str) -> None:
        self._on_sent = on_sent
        self._text_field = text_field
        self._lines: list[bytes] = []
        self._size = self._sent = 0

    def add(self, text: str | Mapping[str, Any]) -> Iterator[bytes]:
        """Add a text or row; yields a block if one is full."""
        if not isinstance(text, str | Mapping):
            raise BadInputError(
                f"item {self._sent} is of type {type(text).__name__}: send texts, or rows with their text"
            )
        row = {self._text_field: text} if isinstance(text, str) else dict(text)
        line = json.dumps(row, default=_to_json).encode() + b"\n"
        self._lines.append(line)
        self._size += len(line)
        self._sent += 1
        if self._size >= _BLOCK_BYTES:
            yield self._take()
            self._on_sent(self._sent)

    def rest(self) -> bytes:
        """The last block."""
        self._on_sent(self._sent)
        return self._take()

    def _take(self) -> bytes:
        block = b"".join(self._lines)
        self._lines, self._size = [], 0
        return block
