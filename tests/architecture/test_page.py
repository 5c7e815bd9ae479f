"""The shape of the page's code. These limits need no Node.js; the other rules are Biome's (scripts/check-page)."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "semel" / "api" / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
FILES = sorted([*SCRIPTS, *PAGE.glob("*.css"), *PAGE.glob("*.html")])
LONGEST_LINE = 120
LONGEST_FILE = 300
LONGEST_FUNCTION = 40
CHECK = ROOT / "scripts" / "check-page"


def functions(source: str) -> Iterator[tuple[int, int]]:
    """The first line and the length of each indented block, except the bodies of classes.

    Biome's format indents the body of each function, and closes it at the indentation of its first line. A block inside
    a function, such as a loop, is found as well and is shorter than its function.
    """
    lines = source.splitlines()
    for first, line in enumerate(lines):
        if line.strip() and not re.match(r"\s*(export )?(default )?class\b", line):
            rest = enumerate(lines[first + 1 :], first + 1)
            last = next((i for i, other in rest if _ends_block(other, _indent(line))), first)
            yield first + 1, last - first + 1


def _ends_block(line: str, opening: int) -> bool:
    """Whether a line closes the block; `}) {` only ends a list of parameters."""
    return bool(line.strip()) and _indent(line) <= opening and not re.match(r"\s*[)}].*{$", line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def longest_function(source: str) -> tuple[int, int]:
    """The length of the longest function and its first line."""
    return max(((length, line) for line, length in functions(source)), default=(0, 0))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_lines_and_files_are_short(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [i for i, line in enumerate(lines, 1) if len(line) > LONGEST_LINE] == []
    assert len(lines) <= LONGEST_FILE


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_functions_fit_a_screen(path: Path) -> None:
    length, line = longest_function(path.read_text())
    assert length <= LONGEST_FUNCTION, f"{path.name}:{line} has {length} lines"


@pytest.mark.parametrize("opening", ["function f() {", "f = (a) => {", "export async function* f({\n  a,\n}) {"])
def test_a_long_function_is_found_with_its_length(opening: str) -> None:
    body = ["  if (a) {", "    b();", "  }", "", "  return 1;"] * 10
    source = "\n".join(["const x = 1;", opening, *body, "}", "", "class A {", *["  a = 1;"] * 60, "}"])
    assert longest_function(source) == (len(opening.splitlines()) + 50 + 1, 2)


def test_without_node_the_lint_of_the_page_is_skipped_with_the_reason(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run([bash, CHECK], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"scripts/check-page: skipped, because node .* https://nodejs\.org\n", done.stderr)
