"""Files that may be compressed: .gz and .zst."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from typing_extensions import override

from semel.errors import BadInputError

COMPRESSED = (".gz", ".zst")

_COMPRESSED_BYTES = 1 << 10
"""Read at a time: four bytes of zstd may hold 128 KiB, so these may hold 32 MiB."""


def suffix_of(path: Path) -> str:
    """The suffix that shows the format, in lower case, without that of the compression."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def opened(path: Path, *, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed while they are read.

    Args:
        max_bytes: a compressed file that holds more is refused; None for no limit.

    Raises:
        BadInputError: it is damaged, or holds too much.
    """
    kind = path.suffix.lower()
    if kind not in COMPRESSED:
        with path.open("rb") as file:
            yield file
        return
    try:
        with path.open("rb") as file:
            inner = gzip.GzipFile(fileobj=file) if kind == ".gz" else _zstd(file)
            yield cast(BinaryIO, io.BufferedReader(_Bounded(path, inner, max_bytes), 1 << 20))
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise BadInputError(f"{path}: the compressed file is damaged: {error}") from None


def _zstd(file: BinaryIO) -> Any:
    import zstandard

    return _Zstd(file, zstandard.ZstdDecompressor().decompressobj)


class _Zstd:
    """Reads frames of zstd, and raises EOFError where the last one has no end, as GzipFile does."""

    def __init__(self, file: BinaryIO, new_frame: Callable[[], Any]) -> None:
        self._file = file
        self._new_frame = new_frame
        self._frame = new_frame()
        self._is_inside = False
        self._ready = b""

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._ready:
            data = self._frame.unused_data if self._frame.eof else b""
            data = data or self._file.read(_COMPRESSED_BYTES)
            if not data:
                if self._is_inside:
                    raise EOFError("it was cut off")
                return b""
            if self._frame.eof:
                self._frame = self._new_frame()
            self._ready = self._frame.decompress(data)
            self._is_inside = not self._frame.eof
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken


class _Bounded(io.RawIOBase):
    """Reads the content of a compressed file, up to a limit: a few bytes may hold terabytes."""

    def __init__(self, path: Path, inner: Any, max_bytes: int | None) -> None:
        self._path = path
        self._inner = inner
        self._left = max_bytes

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        try:
            data = self._inner.read(len(buffer))
        except Exception as error:  # zstandard's class of errors is no public name in every version
            if isinstance(error, OSError | EOFError | zlib.error):
                raise
            raise BadInputError(f"{self._path}: the compressed file is damaged: {error}") from None
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise BadInputError(f"{self._path.name}: it holds more than the server takes (SEMEL_MAX_FILE_BYTES)")
        buffer[: len(data)] = data
        return len(data)
