"""Real text that every machine has: the docstrings of Python's standard library, full of duplicates.

Subclasses repeat the docstrings of what they inherit, so ~47,000 names share ~5,600 texts (Python 3.11): the shape
of a corpus that is indexed again and again.
"""

import contextlib
import importlib
import inspect
import io
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

_SKIPPED = {
    "antigravity",
    "this",
    "posix",
    "nt",
    "idlelib",
    "test",
    "turtledemo",
    "lib2to3",
    "turtle",
    "tkinter",
    "ensurepip",
    "pip",
}
"""Modules that open windows, print poems or need a display, and the second names of os."""


@dataclass(frozen=True)
class Docstring:
    """A documented thing: its name, as one would import it, and its text."""

    name: str
    text: str
    is_function: bool = False

    @property
    def summary(self) -> str:
        """Name and first paragraph: what a search index would hold of a function."""
        first_paragraph = self.text.strip().partition("\n\n")[0]
        return f"{self.name}: {first_paragraph}"


def standard_library_docstrings() -> list[Docstring]:
    """Every docstring that can be reached by a public name, in the order of the names."""
    found: list[Docstring] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules warn when they are imported, or only looked at
        for name in sorted(sys.stdlib_module_names):
            module = None if name in _SKIPPED or name.startswith("_") else _import(name)
            if module is not None:
                found += _documented(module)
    return found


def _import(name: str) -> ModuleType | None:
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        try:
            return importlib.import_module(name)
        except (ImportError, OSError, ValueError):
            return None  # modules of other platforms, or without their C library


def _documented(module: ModuleType) -> Iterator[Docstring]:
    if module.__doc__:
        yield Docstring(module.__name__, module.__doc__)
    for name, thing in _members(module):
        if inspect.ismodule(thing):
            continue
        yield from _one(f"{module.__name__}.{name}", thing, is_function=inspect.isroutine(thing))
        if inspect.isclass(thing):
            for method_name, method in _members(thing):
                yield from _one(f"{module.__name__}.{name}.{method_name}", method)


def _members(thing: object) -> Iterator[tuple[str, object]]:
    for name in dir(thing):
        if name.startswith("_") and not inspect.isclass(thing):
            continue  # a module's private names; a class's special methods are documented like the others
        with contextlib.suppress(Exception):  # properties of foreign classes may raise anything
            yield name, getattr(thing, name)


def _one(name: str, thing: object, *, is_function: bool = False) -> Iterator[Docstring]:
    text = getattr(thing, "__doc__", None)
    if isinstance(text, str) and text.strip():
        yield Docstring(name, text, is_function)
