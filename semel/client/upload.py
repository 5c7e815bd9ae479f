"""Texts as the lines of an upload, encoded while they are sent."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_BLOCK_BYTES = 256 << 10
"""Lines are joined to blocks of this size, because one write per line would be slow."""


def ignore(_: object) -> None:
    """Do nothing: the default for callbacks that report progress."""


def _to_json(value: Any) -> object:
    """Convert NumPy's numbers to JSON's, and dates, decimals and the like to strings, as the server does."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def as_lines(
    texts: Iterable[str | Mapping[str, Any]], on_sent: Callable[[int], None], text_field: str = "text"
) -> Iterator[bytes]:
    """Encode texts as NDJSON, in blocks.

    Args:
        texts: texts, or rows.
        on_sent: called after each block with the number of texts so far.
        text_field: the field of a row that holds a bare text.
    """
    buffer, size, sent = list[bytes](), 0, 0
    for text in texts:
        row = {text_field: text} if isinstance(text, str) else dict(text)
        line = json.dumps(row, default=_to_json).encode() + b"\n"
        buffer.append(line)
        size += len(line)
        sent += 1
        if size >= _BLOCK_BYTES:
            yield b"".join(buffer)
            buffer, size = [], 0
            on_sent(sent)
    yield b"".join(buffer)
    on_sent(sent)
