"""Texts and rows from files: every input keeps its position, and a bad one is named with file and line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.errors import BadInputError
from semel.rows import Item, Record, read_items, read_records

LIMIT = 1 << 20


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def items(path: Path, *, strict: bool = False, limit: int = LIMIT, whole: bool = False) -> list[Item]:
    return list(read_items(path, text_field="text", strict=strict, max_text_bytes=limit, whole=whole))


def texts(path: Path, **options: bool) -> list[str | None]:
    return [item.text for item in items(path, **options)]


def records(path: Path, *, limit: int = LIMIT, columns: list[str] | None = None) -> list[Record]:
    return list(read_records(path, ["text"], columns=columns, max_text_bytes=limit))


# The formats


def test_a_txt_file_has_one_text_per_line(tmp_path: Path) -> None:
    path = write(tmp_path / "in.txt", "\ufefffirst\r\nsecond \nsecond \n  third")
    assert texts(path) == ["first", "second ", "second ", "  third"]


def test_jsonl_rows_are_objects_or_bare_strings(tmp_path: Path) -> None:
    path = write(
        tmp_path / "in.jsonl", '\ufeff{"text": "one", "id": "a", "more": 1}\n\n"two"\n{"text": "three", "id": 3}\n'
    )
    assert [(item.text, item.id, item.where) for item in items(path)] == [
        ("one", "a", f"{path}:1"), ("two", None, f"{path}:3"), ("three", 3, f"{path}:4"),
    ]  # fmt: skip


def test_a_csv_cell_may_have_several_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "in.csv", '\ufeffid,text\n1,"one\nand more"\n2,two\n')
    assert [(item.text, item.id, item.where) for item in items(path, whole=True)] == [
        ("one\nand more", "1", f"{path}:3"), ("two", "2", f"{path}:4"),
    ]  # fmt: skip
    assert records(path)[1].fields == {"id": "2", "text": "two"}


def test_parquet_rows_come_in_batches_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": list(range(2500)), "text": [f"row {i}" for i in range(2500)]}), path)
    read = items(path)
    assert [item.id for item in read] == list(range(2500))
    assert (read[2499].text, read[2499].where) == ("row 2499", f"{path}: row 2500")


def test_of_a_parquet_file_only_the_named_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"text": ["one"], "large": ["x"]}), path)
    assert records(path, columns=["text", "id"])[0].fields == {"text": "one"}
    assert records(path)[0].fields == {"text": "one", "large": "x"}


def test_a_row_is_kept_as_a_whole_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", '{"text": "one", "tags": ["x"]}\n')
    assert items(path, whole=True)[0].fields == {"text": "one", "tags": ["x"]}
    assert items(path)[0].fields == {}


# Bad inputs


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("in.jsonl", '{"txt": "x"}', "in.jsonl:1: no field 'text'"),
        ("in.jsonl", '{"text": null}', "in.jsonl:1: field 'text' is null"),
        ("in.jsonl", '{"text": 5}', "field 'text' is int, not a string"),
        ("in.jsonl", '{"text": ""}', "the text is empty"),
        ("in.jsonl", '{"text": "\\ud800"}', r"the text contains a lone surrogate \(\\ud800 at character 0\)"),
        ("in.jsonl", "[1]", "a list instead of an object with the field 'text'"),
        ("in.jsonl", "[" * 100_000, "not JSON"),
        ("in.jsonl", b'"\xff"', r"not UTF-8 \(byte 0xff at 1\); convert it"),
        ("in.txt", b"fine\nb\xff", r"in.txt:2: not UTF-8 \(byte 0xff at 1\)"),
        ("in.txt", "fine\n\nmore", "in.txt:2: the text is empty"),
        ("in.csv", b"text\nb\xff\n", "in.csv:2: not UTF-8; save the file as UTF-8"),
        ("in.csv", "text,id\n,1\n", "in.csv:2: the text is empty"),
        ("in.csv", "id,text\n1\n", "in.csv:2: field 'text' is null"),
        ("in.csv", "id,text\n1,a,b\n", "in.csv:2: 3 cells under 2 columns"),
        ("in.json", '["fine", {"txt": 1}]', "in.json: row 2: no field 'text'"),
    ],
)
def test_a_bad_input_is_named_with_file_line_and_the_way_on_if_all_must_be_good(
    tmp_path: Path, name: str, content: str | bytes, error: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(BadInputError, match=rf"{error}.* \(without --strict, such inputs fail in their places\)"):
        items(path, strict=True)


def test_bad_inputs_keep_their_positions_and_their_ids(tmp_path: Path) -> None:
    lines = ['{"text": "one"}', "oops", '{"text": "", "id": "empty"}', '{"text": "four"}']
    read = items(write(tmp_path / "in.jsonl", "\n".join(lines)))
    assert [(item.index, item.text, item.id) for item in read] == [
        (0, "one", None), (1, None, None), (2, None, "empty"), (3, "four", None),
    ]  # fmt: skip
    assert [bool(item.error) for item in read] == [False, True, True, False]


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl"])
def test_a_line_that_is_too_long_is_passed_over_and_the_next_is_read(tmp_path: Path, name: str) -> None:
    lines = ["x" * 21, "x" * 3_000_000, "fine"]
    path = write(tmp_path / name, "\n".join(json.dumps(line) if name == "in.jsonl" else line for line in lines))
    read = items(path, limit=10)
    assert [item.text for item in read] == [None, None, "fine"]
    assert read[1].error == "the line is longer than 20 bytes"
    assert read[2].where == f"{path}:3"


def test_a_text_above_the_limit_names_the_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "in.txt", "x" * 11)
    assert items(path, limit=10)[0].error == "the text is longer than 10 characters (SEMEL_MAX_TEXT_BYTES)"
    assert texts(write(path, "x" * 10)) == ["x" * 10]


# Bad files


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("in.pdf", "x", "and folders, but no files with the suffix '.pdf'"),
        ("in.parquet.gz", "x", r".gz or .zst \(except Parquet\), and folders, but no files with the suffix '.gz'"),
        ("README", "x", "and folders, but no files without a suffix"),
        ("in.csv", "a,b\n1,2\n", r"in.csv: no column 'text' \(columns: a, b\)"),
        ("in.csv", "", r"in.csv: no column 'text' \(columns: \)"),
        ("in.parquet", "x", "in.parquet: not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: str, error: str) -> None:
    with pytest.raises(BadInputError, match=error):
        items(write(tmp_path / name, content))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no file or folder"):
        items(tmp_path / "in.txt")


def test_a_parquet_file_without_the_column_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["one"]}), tmp_path / "in.parquet")
    with pytest.raises(BadInputError, match=r"no column 'text' \(columns: body\)"):
        items(tmp_path / "in.parquet")


def test_a_damaged_parquet_file_is_named_with_the_last_good_row(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table({"text": [f"row {i} {'x' * 50}" for i in range(4096)]})
    pq.write_table(table, path, row_group_size=1024, compression="none", use_dictionary=False)
    middle = pq.read_metadata(path).row_group(2).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"in.parquet: cannot be read after row (1024|2048)"):
        items(path)
