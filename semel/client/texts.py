"""The texts that callers give: lists, single texts, and tables of any library that speaks Arrow."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from semel.errors import BadInputError, InvalidTextError


def texts_of(given: Any, text_field: str) -> list[str]:
    """The texts of a request.

    Args:
        given: a list of texts, a single text, a column, or a table.
        text_field: the column of a table that holds the texts.

    Raises:
        BadInputError: it is none of these, or the table has no such column.
        InvalidTextError: an item is no string.
    """
    if (table := _arrow_table(given)) is not None:
        _check_columns(table.column_names, text_field, pairs=False)
        return _strings(text for batch in table for text in batch.column(text_field).to_pylist())
    return _strings(_iterable(given))


def _strings(texts: Iterable[Any]) -> list[str]:
    """The texts as a list. Raises InvalidTextError, which names the first one that is no string."""
    found = list(texts)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise InvalidTextError(index, f"is {type(text).__name__}, not a string")
    return found


def rows_of(given: Any, text_field: str) -> Iterable[str | Mapping[str, Any]]:
    """The texts or rows of a job; the rows of a table are read some at a time.

    Args:
        given: an iterable of texts or rows, a single text, a column, or a table.
        text_field: the column of a table that holds the texts.

    Raises:
        BadInputError: it is none of these, or the table has neither this column nor `query` and `document`.
    """
    if (table := _arrow_table(given)) is not None:
        _check_columns(table.column_names, text_field, pairs=True)
        return (row for batch in table for row in batch.to_pylist())
    return _iterable(given)


def _iterable(given: Any) -> Iterable[Any]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable) or hasattr(given, "columns"):
        kind = type(given).__name__
        raise BadInputError(f'texts is of type {kind}; give a list of texts, such as ["one", "two"], or a table')
    if hasattr(given, "to_pylist"):  # a column of pyarrow, whose items are no Python values
        column: list[Any] = given.to_pylist()
        return column
    return given


class _Table:
    """A table of any library, read as batches of Arrow."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.column_names: list[str] = list(reader.schema.names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._reader)


def _arrow_table(given: Any) -> _Table | None:
    """The table that an object is; None for anything else, such as a list or a column.

    pandas, polars, pyarrow and DuckDB offer their tables through Arrow's PyCapsule interface; pandas does since 2.2.
    """
    names = getattr(given, "columns", None) is not None or hasattr(given, "column_names")
    is_frame = names and (hasattr(given, "__arrow_c_stream__") or hasattr(given, "iloc"))
    if not is_frame:
        return None
    try:
        import pyarrow as pa
    except ImportError:
        raise BadInputError(
            f"reading a {type(given).__name__} needs pyarrow: pip install pyarrow; or send a list of texts"
        ) from None
    if hasattr(given, "__arrow_c_stream__"):
        return _Table(pa.RecordBatchReader.from_stream(given))
    return _Table(pa.Table.from_pandas(given, preserve_index=False).to_reader())


def _check_columns(names: list[str], text_field: str, *, pairs: bool) -> None:
    """Raises BadInputError unless the texts, or the pairs, have their columns."""
    if text_field in names or (pairs and {"query", "document"} <= set(names)):
        return
    raise BadInputError(
        f"the table has no column {text_field!r} (it has: {', '.join(names)}); name the column that holds the texts: "
        "text_field=…"
    )
