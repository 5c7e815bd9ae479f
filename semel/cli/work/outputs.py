"""Write vectors to .parquet, .npy and .jsonl files. A file is written as a stream and renamed when it is complete."""

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from typing_extensions import override

from semel.atomic_write import atomic_write
from semel.client.tables import IncomingFile
from semel.errors import BadInputError, UnavailableError
from semel.rows import Item
from semel.values.result_columns import ResultColumns
from semel.values.vectors import AnyVectors


@dataclass(frozen=True)
class Block:
    """Rows to write, in order.

    Attributes:
        items: n inputs.
        vectors: a row for each; that of an input with an error is not written.
        errors: position in the block → why there is no vector.
        truncated: n flags, whether the model truncated the text.
    """

    items: Sequence[Item]
    vectors: AnyVectors
    errors: dict[int, str]
    truncated: Sequence[bool]


class Output(ABC):
    """A writer for one file format.

    Args:
        file: open for writing, and seekable.
        columns: those that the model fills.

    Raises:
        BadInputError: the format has no place for what the model computes.
    """

    def __init__(self, file: BinaryIO, columns: ResultColumns) -> None:
        self._file = file
        self._columns = columns

    @abstractmethod
    def write(self, block: Block) -> None:
        """Append rows. Raises BadInputError if the format cannot hold them."""

    @abstractmethod
    def finish(self) -> None:
        """Write the end of the file, and update its header."""


class NpyOutput(Output):
    """An array float32 (n, dim) in NumPy's format. It has no place for a row without a vector."""

    def __init__(self, file: BinaryIO, columns: ResultColumns) -> None:
        super().__init__(file, columns)
        columns.check_matrix()
        self._rows = 0
        self._write_header()

    def _write_header(self) -> None:
        # numpy pads the header so that the first axis can grow without moving the data.
        shape = (self._rows, self._columns.dim)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "<f4", "fortran_order": False, "shape": shape})

    @override
    def write(self, block: Block) -> None:
        if block.errors:
            where = block.items[next(iter(block.errors))].where
            raise BadInputError(
                f"{where} has no vector ({next(iter(block.errors.values()))}), and .npy cannot mark a missing row; "
                "write .parquet or .jsonl"
            )
        self._file.write(np.ascontiguousarray(block.vectors, "<f4").data)
        self._rows += len(block.items)

    @override
    def finish(self) -> None:
        self._file.seek(0)
        self._write_header()


class JsonlOutput(Output):
    """One JSON object per line: index, id, text, truncated and the model's fields, or error."""

    @override
    def write(self, block: Block) -> None:
        for i, item in enumerate(block.items):
            record: dict[str, Any] = {"index": item.index}
            if item.id is not None:
                record["id"] = item.id
            record["text"] = item.text
            if i in block.errors:
                record["error"] = block.errors[i]
            else:
                record |= {"truncated": bool(block.truncated[i]), **self._columns.as_json(block.vectors[i])}
            self._file.write(_json(record) + b"\n")

    @override
    def finish(self) -> None:
        """Do nothing: every line is complete."""


class ParquetOutput(Output):
    """Columns index, id, text, those of the model, truncated, error."""

    def __init__(self, file: BinaryIO, columns: ResultColumns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        super().__init__(file, columns)
        self._pa = pa
        self._schema = pa.schema(
            [
                ("index", pa.int64()),
                ("id", pa.string()),
                ("text", pa.string()),
                *columns.fields(),
                ("truncated", pa.bool_()),
                ("error", pa.string()),
            ]
        )
        self._writer = pq.ParquetWriter(file, self._schema)

    @override
    def write(self, block: Block) -> None:
        pa, n = self._pa, len(block.items)
        columns = [
            pa.array([item.index for item in block.items]),
            pa.array([None if item.id is None else _storable(str(item.id)) for item in block.items], pa.string()),
            pa.array([item.text for item in block.items], pa.string()),
            *self._columns.arrays(block.vectors, list(block.errors)),
            pa.array([bool(t) for t in block.truncated]),
            pa.array([_storable(block.errors[i]) if i in block.errors else None for i in range(n)], pa.string()),
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    @override
    def finish(self) -> None:
        self._writer.close()


def _json(record: dict[str, Any]) -> bytes:
    """A record as JSON; half a surrogate pair, which UTF-8 cannot hold, is escaped."""
    try:
        return json.dumps(record, ensure_ascii=False, default=_numbers).encode()
    except UnicodeEncodeError:
        return json.dumps(record, default=_numbers).encode()


def _numbers(value: Any) -> Any:
    """Numbers of numpy as those of Python."""
    return value.tolist()


def _storable(text: str) -> str:
    """The text with a question mark for half a surrogate pair, which Arrow cannot hold."""
    return text.encode("utf-8", "replace").decode()


_OUTPUTS: dict[str, type[Output]] = {".npy": NpyOutput, ".jsonl": JsonlOutput, ".parquet": ParquetOutput}


def check_output(path: Path, *, overwrite: bool) -> None:
    """Check that `path` can be written, before any work is done.

    Raises:
        BadInputError: the format is unknown, the folder does not exist, or the file exists and `overwrite` is False.
    """
    if path.suffix.lower() not in _OUTPUTS:
        raise BadInputError(f"{path}: unknown output format {path.suffix!r} (known: {', '.join(_OUTPUTS)})")
    if path.exists() and not overwrite:
        raise BadInputError(f"{path} exists; use --overwrite to replace it")
    check_folder(path)


def check_folder(path: Path) -> None:
    """Check that the folder of a file exists, before any work is done. Raises BadInputError."""
    if not path.absolute().parent.is_dir():
        raise BadInputError(f"the folder {path.absolute().parent} does not exist; create it before writing {path.name}")


@contextmanager
def open_output(path: Path, columns: ResultColumns) -> Iterator[Output]:
    """Open the writer for this file's format. The file appears only if the block ends without an error or Ctrl-C.

    Raises:
        BadInputError: the format has no place for what the model computes.
    """
    with atomic_write(path) as file:
        output = _OUTPUTS[path.suffix.lower()](file, columns)
        try:
            yield output
        finally:  # also after an error, or pyarrow would close its writer later and complain that the file is closed
            output.finish()


def read_record_batches(parts: Iterator[bytes]) -> Iterator[Any]:
    """Yield the record batches of an Arrow IPC stream as they arrive.

    Raises:
        UnavailableError: the stream ended early.
    """
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(io.BufferedReader(IncomingFile(parts), 1 << 20)) as reader:
            yield from reader
    except (pa.ArrowInvalid, OSError) as error:
        raise UnavailableError(f"the results ended early ({error}); run the command again") from error
