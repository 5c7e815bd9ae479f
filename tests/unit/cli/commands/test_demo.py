"""`semel demo` on the API in this process and a small corpus; see also `tests/unit/cli/work/test_demonstration.py`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from semel.cli.work.docstrings import Docstring
from semel.errors import UnavailableError
from tests.support.cli import Cli

CORPUS = [
    *(Docstring(f"pkg.function_{i}", f"Docstring number {i}.\n\nMore.", is_function=True) for i in range(100)),
    *(Docstring(f"pkg.Class.method_{i}", "Docstring number 0.\n\nMore.") for i in range(50)),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of 150 docstrings, 50 of which repeat the first one."""
    monkeypatch.setattr("semel.cli.work.demonstration.standard_library_docstrings", lambda: CORPUS)


@pytest.fixture
def homes(server: object, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders in which a stack was started; the API in this process answers in its place."""
    started: list[Path] = []

    @contextmanager
    def stack(home: Path) -> Iterator[str]:
        started.append(home)
        yield "http://127.0.0.1:1"

    monkeypatch.setattr("semel.cli.work.demonstration.throwaway_stack", stack)
    return started


def test_the_demo_computes_each_text_once_and_leaves_no_folder(cli: Cli, homes: list[Path]) -> None:
    done = cli("demo")
    assert done.code == 0, done.err
    assert "corpus: 150 docstrings and 100 summaries of functions, 200 of them distinct" in done.out
    rows = {}
    for line in done.out.splitlines():
        words = line.rsplit(maxsplit=7)
        if len(words) == 8 and words[1].isdigit():
            rows[words[0].strip()] = [int(word) for word in words[1:6]]
    assert rows == {
        "first time": [250, 200, 200, 0, 50],
        "the same again": [250, 200, 0, 250, 0],
        "2 % changed": [250, 200, 4, 196, 50],
    }
    assert "Everything is stopped again." in done.out
    (home,) = homes
    assert not home.exists()


def test_a_question_is_answered_by_the_nearest_functions(
    cli: Cli, homes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    question = CORPUS[7].summary
    monkeypatch.setattr("semel.cli.work.demonstration.QUESTIONS", {question: "pkg.function_7"})
    best, *others = cli("demo").out.split(f"{question}\n")[1].splitlines()[:3]
    assert best.split() == ["1.00", "pkg.function_7"]
    assert all(other.split()[1].startswith("pkg.function_") for other in others)


def test_a_stack_that_does_not_start_is_an_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stack(home: Path) -> Iterator[str]:
        raise UnavailableError("redis (exit code 1) ended while the stack was starting")

    monkeypatch.setattr("semel.cli.work.demonstration.throwaway_stack", stack)
    done = cli("demo")
    assert (done.code, "redis (exit code 1)" in done.error) == (1, True)
