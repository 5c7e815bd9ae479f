"""What callers may give as texts: lists, single texts, columns and tables."""

import json
import sys
from datetime import date
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from semel.client import Client
from semel.client.calls import _slices
from semel.errors import BadInputError, InvalidTextError
from tests.support.remote import Server, client_of, job

COLUMNS: dict[str, list[Any]] = {"id": [7, 8], "text": ["one", "two"], "page": [1, 2], "day": [date(2026, 1, 2)] * 2}
PAIRS = {"query": ["q", "q"], "document": ["a", "b"]}


def relation(columns: dict[str, list[Any]]) -> duckdb.DuckDBPyRelation:
    """A table of DuckDB."""
    return duckdb.from_arrow(pa.table(columns))


TABLES = [pd.DataFrame, pl.DataFrame, pa.table, relation]


def embedded(given: Any, **options: Any) -> list[str]:
    """The texts that `embed` sends."""
    server = Server()
    server.answers(json={"data": [{"embedding": "AACAPw=="}]})
    with client_of(server) as client:
        client.embed(given, **options)
    texts: list[str] = json.loads(server.requests[-1].content)["input"]
    return texts


def submitted(given: Any, **options: Any) -> list[dict[str, Any]]:
    """The rows that `submit` sends."""
    server = Server()
    server.answers(json=job())
    with client_of(server) as client:
        client.submit(given, **options)
    return [json.loads(line) for line in server.requests[-1].content.decode().splitlines()]


def test_a_string_is_one_text() -> None:
    assert embedded("hello") == ["hello"]
    assert submitted("hello") == [{"text": "hello"}]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_read_by_its_column_of_texts(table: Any) -> None:
    assert embedded(table(COLUMNS)) == ["one", "two"]
    assert embedded(table({"body": ["b"]}), text_field="body") == ["b"]


@pytest.mark.parametrize("table", TABLES)
def test_the_rows_of_a_table_carry_their_columns(table: Any) -> None:
    rows = submitted(table(COLUMNS))
    assert rows[0] == {"id": 7, "text": "one", "page": 1, "day": "2026-01-02"}
    assert [row["id"] for row in rows] == [7, 8]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_of_pairs_is_a_job_of_pairs(table: Any) -> None:
    assert submitted(table(PAIRS))[1] == {"query": "q", "document": "b"}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_without_the_column_is_refused_with_its_columns(client: Client, table: Any) -> None:
    message = r"the table has no column 'text' \(it has: body\); name the column .*: text_field=…"
    with pytest.raises(BadInputError, match=message):
        client.embed(table({"body": ["b"]}))
    with pytest.raises(BadInputError, match=message):
        client.submit(table({"body": ["b"]}))


def test_an_older_pandas_is_read_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pd.DataFrame, "__arrow_c_stream__")
    assert embedded(pd.DataFrame(COLUMNS)) == ["one", "two"]


@pytest.mark.parametrize(
    "column", [pd.Series(["one"]), pl.Series(["one"]), pa.array(["one"]), pa.chunked_array([["one"]])]
)
def test_a_column_is_a_list_of_texts(column: Any) -> None:
    assert embedded(column) == ["one"]
    assert submitted(column) == [{"text": "one"}]


@pytest.mark.parametrize("wrong", [b"hello", {"text": "one"}, 3, None])
def test_anything_else_is_refused_with_an_example(client: Client, wrong: Any) -> None:
    with pytest.raises(BadInputError, match=r'give a list of texts, such as \["one", "two"\]'):
        client.embed(wrong)
    with pytest.raises(BadInputError, match=rf"texts is of type {type(wrong).__name__}"):
        client.submit(wrong)


def test_without_pyarrow_a_table_says_what_to_install(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BadInputError, match="reading a DataFrame needs pyarrow: pip install pyarrow"):
        client.embed(pl.DataFrame(COLUMNS))


def test_many_texts_travel_in_several_requests() -> None:
    assert [len(part) for part in _slices(["x"] * 2500)] == [1024, 1024, 452]
    long = "x" * 700_000
    assert [len(part) for part in _slices([long, long, "a", "b" * 2_000_000, "c"])] == [1, 2, 1, 1]
    assert _slices([]) == [[]]


class Document:
    page_content = "the real text"


class Headings:
    """Iterates over its headings, as tables do, and offers no way to read its rows."""

    columns = ("id", "text")

    def __iter__(self) -> Any:
        return iter(self.columns)


def test_what_only_looks_like_texts_is_refused(client: Client) -> None:
    for call in (client.embed, client.submit):
        with pytest.raises(BadInputError, match="texts is of type Headings"):
            call(Headings())


@pytest.mark.parametrize("wrong", [Document(), float("nan"), None, ["a"]])
def test_an_item_that_is_no_string_is_named_by_its_place(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidTextError, match=r"text 1 is .*, not a string") as raised:
        client.embed(["a", wrong])
    assert raised.value.index == 1
    with pytest.raises(InvalidTextError, match="text 1 is"):
        client.rerank("q", ["a", wrong])


def test_a_job_takes_no_objects(client: Client, server: Server) -> None:
    server.answers(json=job())
    with pytest.raises(BadInputError, match="a row has a value of type Document, which JSON cannot hold"):
        client.submit([{"text": Document()}])
    with pytest.raises(BadInputError, match="item 1 is of type Document: send texts, or rows"):
        client.submit(["a", Document()])


def test_a_single_document_is_reranked_as_one() -> None:
    server = Server()
    server.answers(json={"results": []})
    with client_of(server) as client:
        client.rerank("q", "abc")
    assert json.loads(server.requests[0].content)["documents"] == ["abc"]
