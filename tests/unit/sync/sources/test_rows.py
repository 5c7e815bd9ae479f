"""Tables and queries as sources."""

import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.errors import BadInputError, UnavailableError
from semel.sync.document import Listed
from semel.sync.sources import open_source
from semel.values.sync import SyncEntry


def listed(source: str, **options: Any) -> list[Listed]:
    return list(open_source(SyncEntry(source=source, sink="parquet:x/y", **options)).list())


def test_rows_of_a_file_are_documents_with_their_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("sku,body,brand\n1,one text,x\n2,,y\n,three,z\n")
    first, empty, nobody = listed(str(file), id="sku", text_field="body", payload=("brand",))
    assert first.document is not None
    assert (first.id, first.document.text, first.document.fields) == ("1", "one text", {"brand": "x"})
    assert (empty.id, empty.error) == ("2", "the text is empty")
    assert nobody.id is None
    assert "its 'sku', which identifies a row, is missing" in str(nobody.error)


def test_a_folder_of_parquet_files_is_one_table(tmp_path: Path) -> None:
    stamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for number in range(3):
        table = pa.table({"id": [number], "text": [f"text {number}"], "at": [stamp], "price": [Decimal("1.50")]})
        (tmp_path / f"day={number}").mkdir()
        pq.write_table(table, tmp_path / f"day={number}" / "part.parquet")
    found = listed(str(tmp_path), version="at", payload=("price",))
    assert [each.id for each in found] == ["0", "1", "2"]
    assert {each.version for each in found} == {"2026-01-02T03:04:05+00:00"}
    assert [each.document and each.document.fields for each in found] == [{"price": "1.50"}] * 3


def test_hidden_files_of_a_dataset_are_left_out(tmp_path: Path) -> None:
    for name in ("a.parquet", ".b.parquet", "_changes/c.parquet", ".git/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": [name], "text": ["x"]}), tmp_path / name)
    assert [each.id for each in listed(str(tmp_path))] == ["a.parquet"]


def test_rows_without_the_column_of_ids_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "a.parquet")
    with pytest.raises(BadInputError, match="'id'"):
        listed(str(tmp_path / "a.parquet"))


@pytest.fixture
def database(tmp_path: Path) -> str:
    with sqlite3.connect(tmp_path / "shop.db") as conn:
        conn.execute("CREATE TABLE products (id INTEGER, name TEXT, note TEXT, updated_at TEXT, price REAL)")
        rows = [(1, "saw", "sharp", "2026-01-01", 9.5), (2, "nail", None, "2026-01-02", None)]
        conn.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?)", rows)
    conn.close()
    return f"sqlite:///{tmp_path / 'shop.db'}"


def test_the_rows_of_a_query_are_documents(database: str) -> None:
    query = "SELECT id, name || ': ' || coalesce(note, '') AS text, updated_at, price FROM products ORDER BY id"
    first, second = listed(database, query=query, version="updated_at", payload=("price",))
    assert first.document is not None
    assert (first.id, first.version, first.document.text) == ("1", "2026-01-01", "saw: sharp")
    assert first.document.fields == {"price": 9.5}
    assert second.document is not None
    assert second.document.fields == {"price": None}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT id FROM products", r"has no column 'text' \(it has: id\)"),
        ("SELECT x FROM nowhere", "no such table: nowhere"),
    ],
)
def test_a_query_that_cannot_be_used_says_why(database: str, query: str, message: str) -> None:
    with pytest.raises((BadInputError, UnavailableError), match=message):
        listed(database, query=query)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("sqlite:///x.db", {}, "a database needs a query"),
        ("docs", {"query": "select 1"}, "a query needs the URL of a database"),
        ("nowhere.parquet", {}, "no file or folder .*may be gone"),
        ("nowhere/", {}, "may be gone"),
    ],
)
def test_an_address_that_makes_no_source_is_refused(source: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        listed(source, **options)


def test_a_database_that_does_not_answer_hides_its_password() -> None:
    with pytest.raises(UnavailableError) as error:
        listed("postgresql://u:secret@127.0.0.1:1/x", query="select 1")
    assert "secret" not in str(error.value)
