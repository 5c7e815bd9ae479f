"""Reads Parquet of strangers in a process of its own: a damaged file can end the process that reads it.

pyarrow lets some errors of its C++ library abort the process (a damaged histogram of levels did). The child reads the
file in pieces (`semel.bounded_parquet`) and writes them to its standard output as an Arrow stream.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from semel.bounded_parquet import BoundedParquet, Row, rows_of
from semel.errors import BadInputError

_MOST_BYTES = 2 << 30
"""Memory of the child, on Linux. The pieces keep it far below, but lists in one row may hold any number of values."""

_TOO_LARGE, _NAMES = b"too large", b"names of all columns"
"""Keys in the metadata of a batch, and of the stream."""

_REFUSED = 3
"""Exit code of a child that wrote the reason to its standard error."""


class IsolatedParquet:
    """An open Parquet file, which another process reads; a context manager.

    Args:
        columns: the only columns to read; None for all.

    Attributes:
        names: of all columns.

    Raises:
        BadInputError: as of `BoundedParquet`, or the file made its reader crash.
    """

    def __init__(self, path: Path, *, columns: Sequence[str] | None) -> None:
        import pyarrow as pa

        self._name = path.name
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `__exit__`
        command = [sys.executable, "-m", "semel.isolated_parquet", str(path), *(["*"] if columns is None else columns)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors, close_fds=True
        )
        assert self._child.stdout is not None  # PIPE above
        try:
            self._stream = pa.ipc.open_stream(pa.input_stream(self._child.stdout))
        except (pa.ArrowException, OSError) as error:
            failure = self._failure(error)
            self.__exit__()
            raise failure from None
        self.names: list[str] = json.loads(self._stream.schema.metadata[_NAMES])

    def __enter__(self) -> "IsolatedParquet":
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._child.kill()
        self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._errors.close()

    def pieces(self) -> Iterator[list[Row]]:
        """Yield rows as `BoundedParquet.pieces` does. Raises BadInputError: the file is damaged."""
        import pyarrow as pa

        while True:
            try:
                batch, about = self._stream.read_next_batch_with_custom_metadata()
            except StopIteration:
                break
            except (pa.ArrowException, OSError) as error:
                raise self._failure(error) from None
            yield rows_of(batch, is_too_large=bool(about) and _TOO_LARGE in about)
        if self._child.wait() != 0:
            raise self._failure("it ended early")

    def _failure(self, error: object) -> BadInputError:
        """The reason that the child gave, or how it ended."""
        code = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        if code == _REFUSED:
            return BadInputError(said)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadInputError(f"{self._name}: not a Parquet file that can be read: its reader ended ({how}; {error})")


def main(path: str, columns: Sequence[str]) -> int:
    """Write the rows of a file to the standard output; returns the exit code."""
    import pyarrow as pa

    if sys.platform == "linux":
        import resource

        with suppress(ValueError):  # there is a smaller limit
            resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    try:
        with BoundedParquet(Path(path), columns=None if list(columns) == ["*"] else columns) as file:
            schema = file.schema.with_metadata({_NAMES: json.dumps(file.names)})
            with pa.ipc.new_stream(sys.stdout.buffer, schema) as writer:
                for batch, is_too_large in file.batches():
                    about, piece = ({_TOO_LARGE: b""}, batch.slice(0, 0)) if is_too_large else (None, batch)
                    writer.write_batch(piece.replace_schema_metadata(schema.metadata), custom_metadata=about)
    except BadInputError as error:
        sys.stderr.write(str(error))
        return _REFUSED
    except BrokenPipeError:  # nobody reads the rest
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
