"""The id of a row: every kind of value that a file can hold is kept."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.rows import read_items
from semel.rows.record import id_of

IDENT = UUID("01234567-89ab-cdef-0123-456789abcdef")


@pytest.mark.parametrize(
    ("value", "ident"),
    [
        (None, None),
        ("a", "a"),
        ("", ""),
        (7, 7),
        (0, 0),
        (1.0, 1),
        (2.5, 2.5),
        (float("nan"), None),
        (True, "True"),
        (Decimal("1.50"), "1.50"),
        (datetime.date(2026, 5, 4), "2026-05-04"),
        (IDENT, str(IDENT)),
        (IDENT.bytes, str(IDENT)),
        (b"\x00\xff", "00ff"),
        ({"a": [1, "大"]}, '{"a": [1, "大"]}'),
        (["x", datetime.date(2026, 5, 4)], '["x", "2026-05-04"]'),
    ],
)
def test_every_kind_of_id_is_kept(value: Any, ident: str | int | None) -> None:
    found = id_of(value)
    assert (found, type(found)) == (ident, type(ident))


def test_whole_numbers_that_a_table_holds_as_floats_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": pa.array([1.0, None, 3.0]), "text": ["a", "b", "c"]}), path)
    assert [item.id for item in read_items(path, text_field="text", max_text_bytes=9)] == [1, None, 3]


def test_the_id_of_a_row_without_a_text_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"id": {"page": 3}, "text": None}))
    (item,) = read_items(path, text_field="text", max_text_bytes=99)
    assert (item.id, item.error) == ('{"page": 3}', "field 'text' is null")
