"""Results as a table, with the fields that the rows were sent with as columns."""

import json
from collections.abc import Iterable, Iterator
from io import RawIOBase
from typing import Any

from typing_extensions import override

from semel.errors import BadInputError


def read_table(parts: Iterable[bytes]) -> Any:
    """A pyarrow table from the server's Arrow stream.

    Raises:
        BadInputError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError:
        raise BadInputError("results as a table need pyarrow: pip install pyarrow") from None
    with pa.ipc.open_stream(IncomingFile(parts)) as reader:
        table = reader.read_all()
    at = table.column_names.index("metadata")
    fields = [json.loads(text) if text else {} for text in table.column("metadata").to_pylist()]
    table = table.remove_column(at)
    if "embedding" in table.column_names and table.schema.field("embedding").type.list_size == 1:
        scores = [None if row is None else row[0] for row in table.column("embedding").to_pylist()]
        table = table.set_column(table.column_names.index("embedding"), "score", pa.array(scores, pa.float32()))
    for name in dict.fromkeys(name for row in fields for name in row):
        column = name if name not in table.column_names else f"metadata.{name}"
        table = table.add_column(at, column, _column(pa, [row.get(name) for row in fields]))
        at += 1
    return table


def _column(pa: Any, values: list[Any]) -> Any:
    """A column of any JSON values; those that have no common type become JSON text."""
    try:
        return pa.array(values)
    except pa.ArrowException:
        return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


class IncomingFile(RawIOBase):
    """A file that Arrow can read, over byte strings as they arrive."""

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts: Iterator[bytes] = iter(parts)
        self._rest = memoryview(b"")

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
