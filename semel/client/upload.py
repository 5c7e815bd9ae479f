"""Texts as the lines of an upload, sent while they are produced."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_UPLOAD_BYTES = 256 << 10


def ignore(_: object) -> None:
    """A caller who wants no progress."""


def _plain(value: Any) -> object:
    """NumPy's numbers as JSON has them; dates, decimals and the like in their own words, as the server has them."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def as_lines(
    texts: Iterable[str | Mapping[str, Any]], on_sent: Callable[[int], None], text_field: str = "text"
) -> Iterator[bytes]:
    buffer, size, sent = list[bytes](), 0, 0
    for text in texts:
        row = {text_field: text} if isinstance(text, str) else dict(text)
        line = json.dumps(row, default=_plain).encode() + b"\n"
        buffer.append(line)
        size += len(line)
        sent += 1
        if size >= _UPLOAD_BYTES:
            yield b"".join(buffer)
            buffer, size = [], 0
            on_sent(sent)
    yield b"".join(buffer)
    on_sent(sent)
