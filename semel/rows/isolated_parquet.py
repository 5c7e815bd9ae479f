"""Reads Parquet of strangers in a process of its own: a damaged file can end the process that reads it.

pyarrow lets some errors of its C++ library abort the process (a damaged histogram of levels did). The child
(`semel.rows.parquet_child`) reads the file in pieces and writes them to its standard output as an Arrow stream.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from semel.errors import BadInputError
from semel.rows.bounded_parquet import Row, rows_of

TOO_LARGE, NAMES = b"too large", b"names of all columns"
"""Keys in the metadata of a batch, and of the stream."""

REFUSED = 3
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
        command = [
            sys.executable,
            "-m",
            "semel.rows.parquet_child",
            str(path),
            *(["*"] if columns is None else columns),
        ]
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
        self.names: list[str] = json.loads(self._stream.schema.metadata[NAMES])

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
            yield rows_of(batch, is_too_large=bool(about) and TOO_LARGE in about)
        if self._child.wait() != 0:
            raise self._failure("it ended early")

    def _failure(self, error: object) -> BadInputError:
        """The reason that the child gave, or how it ended."""
        code = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        if code == REFUSED:
            return BadInputError(said)
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return BadInputError(f"{self._name}: not a Parquet file that can be read: its reader ended ({how}; {error})")
