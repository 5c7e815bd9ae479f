"""A .json file is a list of rows, which is read in pieces wherever these end."""

import json
from pathlib import Path
from typing import Any

import pytest

from semel.errors import BadInputError
from semel.rows import Record, json_array, read_records

ROWS: list[Any] = [
    {"id": 1, "text": "one, [two] {three}"},
    "a bare text",
    {"text": 'with "quotes" and 大 😀', "page": {"a": [1, 2]}},
    "",
]


def listed(path: Path, content: str | bytes, *, limit: int = 1 << 20) -> list[Record]:
    """The rows of a .json file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_records(path, ["text"], max_text_bytes=limit))


def test_each_item_of_the_list_is_a_row_or_a_text(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    rows = listed(path, json.dumps(ROWS))
    assert [row.fields for row in rows] == [row if isinstance(row, dict) else {"text": row} for row in ROWS]
    assert [row.where for row in rows] == [f"{path}: row {number}" for number in range(1, 5)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("indent", [None, 2])
def test_pieces_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, indent: int | None
) -> None:
    monkeypatch.setattr(json_array, "_PIECE_BYTES", size)
    content = json.dumps(ROWS, ensure_ascii=False, indent=indent)
    rows = listed(tmp_path / "in.json", "\ufeff \n" + content + "\n")
    assert [row.fields for row in rows] == [row if isinstance(row, dict) else {"text": row} for row in ROWS]


def test_an_item_that_is_no_row_fails_alone(tmp_path: Path) -> None:
    bad, good = listed(tmp_path / "in.json", '[5, "fine"]')
    assert bad.error == "a int instead of an object with the field 'text'"
    assert good.fields == {"text": "fine"}


def test_an_empty_list_has_no_rows(tmp_path: Path) -> None:
    assert listed(tmp_path / "in.json", " [ ] ") == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"text": "one"}', r"in\.json: a \.json file must hold a list of rows, such as .*name it \.jsonl"),
        ("", "must hold a list of rows"),
        ('["one", oops]', r"in\.json: row 2: not JSON: Expecting value"),
        ('["one", "two', r"in\.json: row 2: not JSON: Unterminated string"),
        ('["one",', r"in\.json: row 2: not JSON: Expecting value"),
        ("[" * 100_000, r"in\.json: row 1: not JSON: it is nested too deeply"),
        ("[] x", r"in\.json: not JSON: 'x' follows the end of the list"),
        ('["one"]]', r"in\.json: not JSON: '\]' follows the end of the list"),
        (b'["one", "\xff"]', r"in\.json: not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str | bytes, error: str) -> None:
    with pytest.raises(BadInputError, match=error):
        listed(tmp_path / "in.json", content)


def test_an_item_without_an_end_is_an_error_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_array, "_PIECE_BYTES", 100)
    with pytest.raises(BadInputError, match="row 2: longer than 200 characters, or not JSON"):
        listed(tmp_path / "in.json", '["fine", "' + "x" * 1000, limit=100)
