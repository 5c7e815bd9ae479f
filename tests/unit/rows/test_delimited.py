"""Tables of text: cells that do not fit under the header are an error of their row, wrong quoting one of the file."""

from pathlib import Path

import pytest

from semel.errors import BadInputError
from semel.rows import Record, read_records


def table(path: Path, content: str | bytes, *, limit: int = 1 << 20) -> list[Record]:
    """The rows of a table with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_records(path, ["text"], max_text_bytes=limit))


def test_a_tab_separates_the_cells_of_a_tsv_file_and_a_comma_does_not(tmp_path: Path) -> None:
    (row,) = table(tmp_path / "in.tsv", "id\ttext\n1\tone, and more\n")
    assert row.fields == {"id": "1", "text": "one, and more"}


def test_surplus_cells_are_an_error_of_their_row(tmp_path: Path) -> None:
    good, bad, last = table(tmp_path / "in.csv", "id,text\n1,one\n2,two, and more\n3,three\n")
    assert (bad.where, bad.fields) == (f"{tmp_path / 'in.csv'}:3", {"id": "2"})
    assert bad.error == "3 cells under 2 columns; put a text with the separator into quotation marks"
    assert [row.error for row in (good, last)] == [None, None]


def test_blank_surplus_cells_are_nothing(tmp_path: Path) -> None:
    (row,) = table(tmp_path / "in.csv", "id,text\n1,one,, \n")
    assert (row.error, row.fields) == (None, {"id": "1", "text": "one"})


def test_a_missing_cell_is_null(tmp_path: Path) -> None:
    (row,) = table(tmp_path / "in.csv", "id,text\n1\n")
    assert (row.error, row.fields) == (None, {"id": "1", "text": None})


def test_an_empty_line_is_no_row(tmp_path: Path) -> None:
    assert [row.fields["text"] for row in table(tmp_path / "in.csv", "text\none\n\ntwo\n")] == ["one", "two"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in\.csv: two columns have the name 'page'; rename one of them"):
        table(tmp_path / "in.csv", "page,text,page\n1,one,2\n")


def test_columns_without_a_name_are_not_two_of_one_name(tmp_path: Path) -> None:
    (row,) = table(tmp_path / "in.csv", "text,,\none,1,2\n")
    assert row.fields["text"] == "one"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('text\nfine\n"one" more\n', 3),
        ('text\n"one\ntwo', 3),
    ],
)
def test_wrong_quoting_is_an_error_of_the_file_with_its_line(tmp_path: Path, content: str, line: int) -> None:
    message = rf"in\.csv:{line}: not CSV: .*; is a quotation mark missing, or not doubled\?"
    with pytest.raises(BadInputError, match=message):
        table(tmp_path / "in.csv", content)


def test_a_cell_without_an_end_is_an_error_before_it_fills_the_memory(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="not CSV: field larger than field limit"):
        table(tmp_path / "in.csv", 'text\n"' + "x" * 3000, limit=1000)


def test_a_quotation_mark_that_is_doubled_is_part_of_the_text(tmp_path: Path) -> None:
    (row,) = table(tmp_path / "in.csv", 'text\n"say ""one"""\n')
    assert row.fields == {"text": 'say "one"'}


def test_a_row_that_is_not_utf8_fails_alone_and_keeps_its_id(tmp_path: Path) -> None:
    bad, good = table(tmp_path / "in.csv", b"id,text\n1,\xff\n2,two\n")
    assert (bad.error, bad.fields) == ("not UTF-8; save the file as UTF-8", {"id": "1"})
    assert good.fields == {"id": "2", "text": "two"}


def test_a_header_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"in\.csv: the line with the names of the columns is not UTF-8"):
        table(tmp_path / "in.csv", b"text,\xff\none,1\n")
