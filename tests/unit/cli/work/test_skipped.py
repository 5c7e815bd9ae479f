"""The list of inputs that cannot be read."""

import pytest

from semel.cli.work.skipped import print_skipped
from semel.rows import Item


def unreadable(count: int) -> list[Item]:
    return [Item(i, None, f"in.txt:{i + 1}", error="is empty") for i in range(count)]


def test_nothing_is_printed_when_all_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    print_skipped([], "the rest is fine")
    assert capsys.readouterr() == ("", "")


def test_each_is_listed_on_stderr_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_skipped(unreadable(2), "the rest is fine")
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines() == [
        "2 inputs cannot be read; the rest is fine:",
        "  in.txt:1: is empty",
        "  in.txt:2: is empty",
    ]


def test_a_long_list_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_skipped(unreadable(25), "the rest is fine")
    first, *lines = capsys.readouterr().err.splitlines()
    assert first.startswith("25 inputs cannot be read")
    assert len(lines) == 20
