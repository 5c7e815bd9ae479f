"""A folder of files: what is read of it, in which order, under which ids."""

from pathlib import Path

import pytest

from semel.errors import BadInputError
from semel.rows import Item, read_items, skipped_files


def made(root: Path, **files: str | bytes) -> Path:
    """A folder with these files; `__` in a name stands for `/`, and `_` for `.`."""
    for name, content in files.items():
        write(root, name.replace("__", "/").replace("_", "."), content)
    return root


def write(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def items(root: Path, *include: str, limit: int = 1 << 20, whole: bool = False) -> list[Item]:
    return list(read_items(root, text_field="text", max_text_bytes=limit, include=include, whole=whole))


def read(root: Path, *include: str) -> list[tuple[str | None, object]]:
    return [(item.text, item.id) for item in items(root, *include)]


def test_each_text_file_is_one_text_and_each_other_file_has_rows(tmp_path: Path) -> None:
    made(tmp_path, b_md="two\nlines", sub__c_TXT="three", a_jsonl='"one"\n"another"\n', d_csv="text\nfour\n")
    assert read(tmp_path) == [
        ("one", "a.jsonl#1"),
        ("another", "a.jsonl#2"),
        ("two\nlines", "b.md"),
        ("four", "d.csv#1"),
        ("three", "sub/c.TXT"),
    ]


def test_ids_of_rows_name_their_file_so_that_none_is_there_twice(tmp_path: Path) -> None:
    made(
        tmp_path, a_csv="id,text\n7,one\n8,two\n", sub__a_csv="id,text\n7,three\n", c_jsonl='{"id": 7, "text": "four"}'
    )
    assert [item.id for item in items(tmp_path)] == ["a.csv#7", "a.csv#8", "c.jsonl#7", "sub/a.csv#7"]
    assert items(tmp_path, whole=True)[0].fields["id"] == "a.csv#7"


@pytest.mark.parametrize("suffix", ["txt", "md", "mdx", "markdown", "rst", "adoc", "org", "MD"])
def test_a_file_of_text_may_have_several_suffixes(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"a.{suffix}", "one\n\ntwo")
    assert read(tmp_path) == [("one\n\ntwo", f"a.{suffix}")]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    for name in (".hidden.txt", ".git/config.txt", "sub/.cache/deep/a.txt", "sub/.b.md"):
        write(tmp_path, name, "hidden")
    write(tmp_path, "sub/shown.txt", "shown")
    assert read(tmp_path) == [("shown", "sub/shown.txt")]
    assert skipped_files(tmp_path).total() == 0


def test_a_folder_below_a_hidden_one_is_read_when_it_is_named(tmp_path: Path) -> None:
    write(tmp_path, ".hidden/notes/a.txt", "one")
    assert read(tmp_path / ".hidden" / "notes") == [("one", "a.txt")]


def test_a_file_that_cannot_be_read_is_one_row_with_its_error(tmp_path: Path) -> None:
    made(tmp_path, a_txt=b"\xff", b_parquet="none", c_csv="body\none\n", d_txt="fine")
    not_utf8, not_parquet, no_column, good = items(tmp_path)
    assert [item.id for item in (not_utf8, not_parquet, no_column)] == ["a.txt", "b.parquet", "c.csv"]
    assert "not UTF-8 (byte 0xff at 0)" in (not_utf8.error or "")
    assert "b.parquet: not a Parquet file" in (not_parquet.error or "")
    assert "c.csv: no column 'text'" in (no_column.error or "")
    assert (good.text, good.index) == ("fine", 3)


def test_a_file_that_is_damaged_midway_keeps_its_rows_before(tmp_path: Path) -> None:
    made(tmp_path, a_csv='text\none\n"two" and more\nthree\n', b_txt="fine")
    assert [(item.text, item.id) for item in items(tmp_path)] == [
        ("one", "a.csv#1"),
        (None, "a.csv"),
        ("fine", "b.txt"),
    ]


def test_an_unreadable_row_has_the_number_of_its_row(tmp_path: Path) -> None:
    made(tmp_path, a_jsonl='"one"\noops\n{"text": "three", "id": "c"}\n')
    assert read(tmp_path) == [("one", "a.jsonl#1"), (None, "a.jsonl#2"), ("three", "a.jsonl#c")]


def test_other_files_are_read_as_text_when_they_are_included(tmp_path: Path) -> None:
    made(tmp_path, a_html="<p>one", b_py="two", c_txt="three", sub__d_html="four")
    assert read(tmp_path) == [("three", "c.txt")]
    assert read(tmp_path, "*.html") == [("<p>one", "a.html"), ("three", "c.txt"), ("four", "sub/d.html")]
    assert read(tmp_path, "*.py", "sub/*.html") == [("two", "b.py"), ("three", "c.txt"), ("four", "sub/d.html")]


def test_a_table_that_is_included_is_read_as_text(tmp_path: Path) -> None:
    made(tmp_path, a_csv="text\none\n", b_txt="two")
    assert read(tmp_path, "*.csv") == [("text\none\n", "a.csv"), ("two", "b.txt")]


def test_files_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    made(tmp_path, a_html="x", sub__b_HTML="x", c_py="x", README="x", d_txt="x", e_csv="text\nx\n")
    write(tmp_path, ".hidden.html", "x")
    assert skipped_files(tmp_path) == {".html": 2, ".py": 1, "without a suffix": 1}
    assert skipped_files(tmp_path, ["*.html"]) == {".html": 1, ".py": 1, "without a suffix": 1}
    assert skipped_files(tmp_path / "a.html") == {}, "a file is no folder"


def test_a_folder_without_a_file_that_is_read_is_an_error(tmp_path: Path) -> None:
    made(tmp_path, a_html="x")
    with pytest.raises(BadInputError, match=r"has no \.jsonl, .*\.md, .* file; --include '\*\.SUFFIX' reads others"):
        items(tmp_path)


@pytest.mark.parametrize("character", ["x", "é", "大", "😀"])
def test_a_file_with_a_text_above_the_limit_fails(tmp_path: Path, character: str) -> None:
    made(tmp_path, a_txt=character * 10, b_txt=character * 11, c_txt=character * 100)
    good, long, longer = items(tmp_path, limit=10)
    assert good.text == character * 10
    assert [item.error for item in (long, longer)] == [
        "the text is longer than 10 characters (SEMEL_MAX_TEXT_BYTES)"
    ] * 2
