"""Progress on stderr, and below the cell of a notebook."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from semel.client.progress import of_job, progress_bar
from semel.client.records import job_of
from tests.support.remote import job


def test_a_bar_ends_with_the_texts_and_hits_that_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(visible=True) as show:
        show("fake", 1, 3, 1)
        show("fake", 3, 3, 2)
    printed = capsys.readouterr()
    assert "fake" in printed.err
    assert "3/3 2 hits" in printed.err
    assert printed.out == ""


def test_nothing_is_printed_if_it_is_not_visible(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(visible=False) as show:
        show("fake", 1, 3, 1)
    assert capsys.readouterr() == ("", "")


class Handle:
    """Stands for a line below a cell."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.lines.append(data["text/plain"])


@pytest.fixture
def below_the_cell(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """A notebook, as far as code in a cell can see it."""
    handle, shell = Handle(), type("ZMQInteractiveShell", (), {})()

    def display(data: dict[str, str], **options: Any) -> Handle:
        assert options == {"raw": True, "display_id": True}
        handle.lines.append(data["text/plain"])
        return handle

    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return handle


def test_a_notebook_has_one_line_that_changes(below_the_cell: Handle, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(visible=True) as show:
        show("fake", 500, 2000, 20)
        show("fake", 2000, 2000, 20)
    first, half, done = below_the_cell.lines
    assert first == "sending …"
    assert half.startswith("fake: 500 of 2,000 texts (25%), 20 hits, ")
    assert half.endswith(" s left")
    assert done.startswith("fake: 2,000 of 2,000 texts (100%), 20 hits, ")
    assert "left" not in done
    assert capsys.readouterr() == ("", "")


def test_a_terminal_with_ipython_has_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shell = type("TerminalInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    with progress_bar(visible=True) as show:
        show("fake", 1, 1, 0)
    assert "1/1 0 hits" in capsys.readouterr().err


def test_the_progress_of_a_job_is_shown() -> None:
    shown: list[Any] = []
    counts = {"total": 4, "hit": 2, "computed": 1, "coalesced": 0, "failed": 0, "truncated": 0, "tokens": 9}
    of_job(lambda *values: shown.append(values))(job_of(job("in_progress", counts=counts)))
    assert shown == [("fake", 3, 4, 2)]
