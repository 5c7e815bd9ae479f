"""Reads Parquet in pieces of bounded size: a file of some hundred bytes can hold gigabytes.

A value that repeats is stored once, in a dictionary, and compression shrinks what repeats again. So strings stay in
their dictionaries until the size of the rows is known, and what cannot be read in pieces is refused by the file's
metadata.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from semel.errors import BadInputError

Row: TypeAlias = dict[str, Any] | str
"""The fields of a row, or why it has none."""

PIECE_BYTES = 64 << 20
"""Bytes of the rows in a piece, as Python objects: enough for one row with the longest text."""

_ROWS = 1024
"""Rows of a piece of ordinary rows."""

_MOST_DICTIONARY_BYTES = 3 * PIECE_BYTES
"""The distinct strings that some rows refer to; writers end a dictionary at about a megabyte."""

_OBJECT_BYTES = 32
"""A number, or the head of a string, as a Python object; also its place in a list."""

_FIXED_BYTES = 4096
"""Bytes of a value of fixed length; real ones are numbers and UUIDs."""

_LARGE_BYTES, _MOST_RATIO = 64 << 20, 200
"""A column of a row group that is larger than this, and was compressed to less than a two hundredth, is no text."""


class BoundedParquet:
    """An open Parquet file; a context manager.

    Args:
        columns: the only columns to read; None for all.

    Attributes:
        names: of all columns.
        schema: of the batches, as pyarrow's.

    Raises:
        BadInputError: the file is not Parquet, or a column is too large to be read in pieces.
    """

    def __init__(self, path: Path, *, columns: Sequence[str] | None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_metadata(path)
            schema = [metadata.schema.column(i) for i in range(metadata.num_columns)]
            strings = [column.path for column in schema if column.physical_type == "BYTE_ARRAY"]
            self._file = pq.ParquetFile(path, metadata=metadata, read_dictionary=strings)
        except (pa.ArrowException, OSError) as error:
            raise BadInputError(f"{path.name}: not a Parquet file: {error}") from None
        self._name = path.name
        self.names: list[str] = self._file.schema_arrow.names
        self._columns = None if columns is None else [name for name in columns if name in self.names]
        fields = self._file.schema_arrow
        if self._columns is not None:
            fields = pa.schema([fields.field(name) for name in self._columns])
        self.schema: Any = fields
        try:
            for i, column in enumerate(schema):
                if self._columns is None or column.path.partition(".")[0] in self._columns:
                    _check_column(path, metadata, column, i)
        except BadInputError:
            self._file.close()
            raise

    def __enter__(self) -> "BoundedParquet":
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def pieces(self) -> Iterator[list[Row]]:
        """Yield some rows after the others, in order. Raises BadInputError: the file is damaged."""
        for batch, is_too_large in self.batches():
            yield rows_of(batch, is_too_large=is_too_large)

    def batches(self) -> Iterator[tuple[Any, bool]]:
        """The same as record batches of pyarrow, each with whether it is a single row that is too large."""
        import pyarrow as pa

        row = 0
        try:
            for number in range(self._file.num_row_groups):  # pyarrow cannot join the dictionaries of two of them
                size = _rows_at_once(self._file.metadata.row_group(number))
                for batch in self._file.iter_batches(batch_size=size, row_groups=[number], columns=self._columns):
                    if sum(map(_shared_bytes, batch.columns)) > _MOST_DICTIONARY_BYTES:
                        raise ValueError("its rows share more text than fits into memory; write smaller row groups")
                    for piece, is_too_large in _halved(batch):
                        yield piece, is_too_large
                        row += piece.num_rows
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise BadInputError(f"{self._name}: cannot be read after row {row}: {error}") from None


def _check_column(path: Path, metadata: Any, column: Any, index: int) -> None:
    if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > _FIXED_BYTES:
        raise BadInputError(f"{path.name}: the values of the column {column.path} have {column.length} bytes each")
    for number in range(metadata.num_row_groups):
        chunk = metadata.row_group(number).column(index)
        where = f"{path.name}: the column {column.path} in row group {number + 1}"
        compressed = max(1, chunk.total_compressed_size)
        if chunk.total_uncompressed_size > max(_LARGE_BYTES, _MOST_RATIO * compressed):
            size = chunk.total_uncompressed_size
            raise BadInputError(f"{where} holds {size} bytes in {compressed}, which is no text")


def rows_of(batch: Any, *, is_too_large: bool) -> list[Row]:
    """The rows of a record batch.

    Args:
        is_too_large: it has one row, which is larger than `PIECE_BYTES`.
    """
    import pyarrow as pa

    if is_too_large:
        return [f"the row is larger than {PIECE_BYTES} bytes"]
    try:
        rows: list[Row] = batch.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:  # no UTF-8, or a date after the year 9999
        if batch.num_rows == 1:
            return [f"a value cannot be read: {error}"]
        return [row for i in range(batch.num_rows) for row in rows_of(batch.slice(i, 1), is_too_large=False)]
    return rows


def _rows_at_once(group: Any) -> int:
    """How many rows to decode at once, so that ordinary ones take half a piece."""
    each: int = group.total_byte_size // max(1, group.num_rows)
    return max(1, min(_ROWS, PIECE_BYTES // 2 // max(1, each)))


def _halved(batch: Any) -> Iterator[tuple[Any, bool]]:
    if sum(map(_size, batch.columns)) <= PIECE_BYTES:
        yield batch, False
    elif batch.num_rows == 1:
        yield batch, True
    else:
        middle = batch.num_rows // 2
        yield from _halved(batch.slice(0, middle))
        yield from _halved(batch.slice(middle))


def _size(array: Any) -> int:
    """About the bytes of an array's values as Python objects."""
    return sum(_OBJECT_BYTES * len(part) + _own_bytes(part) for part in _parts(array))


def _own_bytes(array: Any) -> int:
    """The bytes of the values of an array, without those of its parts; a string counts wherever it is repeated."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        return pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0
    return 0 if pa.types.is_nested(array.type) else int(array.nbytes)


def _shared_bytes(array: Any) -> int:
    """The bytes of the dictionaries of an array."""
    import pyarrow as pa

    return sum(part.dictionary.nbytes for part in _parts(array) if pa.types.is_dictionary(part.type))


def _parts(array: Any) -> Iterator[Any]:
    """An array, and the arrays that its lists, structs and maps consist of."""
    import pyarrow as pa

    yield array
    if pa.types.is_map(array.type):
        # Neither keys nor items of a map know that the map was sliced.
        start, stop = array.offsets[0].as_py(), array.offsets[-1].as_py()
        inner = [array.keys.slice(start, stop - start), array.items.slice(start, stop - start)]
    elif pa.types.is_struct(array.type):
        inner = array.flatten()
    elif pa.types.is_nested(array.type):
        inner = [array.flatten()]
    else:
        return
    for part in inner:
        yield from _parts(part)
