"""Folders as sources."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from semel.errors import BadInputError, UnavailableError
from semel.sync.document import Document, Listed
from semel.sync.sources import open_source
from semel.sync.sources.files import MOST_BYTES, Files, LocalTree
from semel.values.sync import SyncEntry


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    for name, text in {
        "a.md": "# Title\n\nText.",
        "deep/er/b.txt": "plain",
        "deep/c.rst": "also",
        "code.py": "print()",
        ".hidden.md": "no",
        ".git/d.md": "no",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def files(root: Path, *include: str, payload: tuple[str, ...] = ("path", "title", "modified")) -> Files:
    source = open_source(SyncEntry(source=str(root), sink="parquet:x/y", include=include, payload=payload))
    assert isinstance(source, Files)
    return source


def ids(source: Files) -> list[str | None]:
    return [each.id for each in source.list()]


def test_files_of_a_known_kind_are_documents_and_hidden_ones_are_not(root: Path) -> None:
    assert sorted(map(str, ids(files(root)))) == ["a.md", "deep/c.rst", "deep/er/b.txt"]


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (("**/*.md",), ["a.md"]),
        (("*.py",), ["code.py"]),
        (("deep/**",), ["deep/c.rst", "deep/er/b.txt"]),
        (("*.txt", "*.rst", "!deep/c.rst"), ["deep/er/b.txt"]),
        (("**/*.md", "**/*.pdf"), ["a.md"]),
    ],
)
def test_patterns_choose_files_at_any_depth(root: Path, include: tuple[str, ...], expected: list[str]) -> None:
    assert sorted(map(str, ids(files(root, *include)))) == expected


def test_a_document_has_its_text_its_title_and_its_version(root: Path) -> None:
    source = files(root)
    listed = {each.id: each for each in source.list()}
    document = source.read(listed["a.md"])
    assert (document.id, document.text, document.markdown) == ("a.md", "# Title\n\nText.", True)
    assert (document.fields["path"], document.fields["title"]) == ("a.md", "Title")
    assert document.version == listed["a.md"].version
    assert document.fields["modified"].startswith("20")
    plain = source.read(listed["deep/er/b.txt"])
    assert (plain.fields["title"], plain.markdown) == ("b", False)


def test_a_written_file_has_another_version(root: Path) -> None:
    source = files(root)
    document = source.read(Listed("a.md", ""))
    assert source.is_current(document)
    (root / "a.md").write_text("# Other\n\nText.")
    os.utime(root / "a.md", ns=(1, 1))
    assert not source.is_current(document)
    (root / "a.md").unlink()
    assert not source.is_current(document)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfe", r"it is not UTF-8 \(byte 0 is 0xff\)"),
        (b"a\0b", "it contains NUL characters"),
        (bytes(MOST_BYTES + 1), "it has 67,108,865 bytes; documents may have 67,108,864"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(root: Path, data: bytes, message: str) -> None:
    (root / "bad.md").write_bytes(data)
    with pytest.raises(BadInputError, match=message):
        files(root).read(Listed("bad.md"))


def test_a_file_that_is_gone_fails_alone(root: Path) -> None:
    with pytest.raises(BadInputError, match=r"it cannot be read: No such file"):
        files(root).read(Listed("gone.md"))


def test_names_that_are_not_utf8_are_left_out(root: Path) -> None:
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.md")).write_text("x")
    assert None not in ids(files(root))
    assert len(ids(files(root))) == 3


def test_a_folder_that_is_gone_is_no_empty_source(root: Path) -> None:
    with pytest.raises(BadInputError, match="if it is a mount, it may be gone"):
        files(root / "nowhere")
    with pytest.raises(BadInputError, match="if it is a mount, it may be gone"):
        list(LocalTree(root / "nowhere").entries())


def test_a_folder_that_cannot_be_listed_ends_the_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its documents would otherwise seem to be gone."""

    def walk(top: Path, onerror: object) -> Iterator[object]:
        onerror(PermissionError(13, "Permission denied", str(top / "deep")))  # type: ignore[operator]
        yield from ()

    monkeypatch.setattr(os, "walk", walk)
    with pytest.raises(UnavailableError, match="deep cannot be read: Permission denied"):
        list(LocalTree(root).entries())


def test_a_file_that_cannot_be_looked_at_is_not_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.stat

    def stat(path: object, *args: object, **named: object) -> os.stat_result:
        if str(path).endswith("b.txt"):
            raise PermissionError(13, "Permission denied")
        return plain(path, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    listed = {each.id: each.error for each in files(root).list()}
    assert listed["deep/er/b.txt"] == "it cannot be read: Permission denied"
    assert listed["a.md"] is None


def test_a_payload_field_that_files_do_not_have_is_refused(root: Path) -> None:
    with pytest.raises(BadInputError, match=r"no field 'colour' .*\(they have: path, title, heading, modified\)"):
        files(root, payload=("colour",))


def test_a_document_without_a_heading_is_named_after_its_file(root: Path) -> None:
    (root / "notes.md").write_text("no heading")
    assert files(root).read(Listed("notes.md")).fields["title"] == "notes"


def test_a_document_is_what_was_read(root: Path) -> None:
    assert isinstance(files(root).read(Listed("a.md")), Document)
