"""Real text that every machine has: the docstrings of Python's standard library, with many duplicates.

Subclasses repeat the docstrings that they inherit, so ~47,000 names share ~5,600 texts (Python 3.11), like a corpus
that is indexed again and again.
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
"""Modules that open windows, print a poem on import or need a display, and duplicates of os."""


@dataclass(frozen=True)
class Docstring:
    """A documented object: its full name, its docstring, and whether it is a function of a module."""

    name: str
    text: str
    is_function: bool = False

    @property
    def summary(self) -> str:
        """Name and first paragraph, as a search index would hold them."""
        first_paragraph = self.text.strip().partition("\n\n")[0]
        return f"{self.name}: {first_paragraph}"


def standard_library_docstrings() -> list[Docstring]:
    """Every docstring that has a public name, in the order of the module names."""
    found: list[Docstring] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules warn on import or on attribute access
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
            return None  # made for another platform, or its C library is missing


def _documented(module: ModuleType) -> Iterator[Docstring]:
    if module.__doc__:
        yield Docstring(module.__name__, module.__doc__)
    for name, member in _members(module):
        if inspect.ismodule(member):
            continue
        yield from _docstring(f"{module.__name__}.{name}", member, is_function=inspect.isroutine(member))
        if inspect.isclass(member):
            for method_name, method in _members(member):
                yield from _docstring(f"{module.__name__}.{name}.{method_name}", method)


def _members(owner: object) -> Iterator[tuple[str, object]]:
    for name in dir(owner):
        if name.startswith("_") and not inspect.isclass(owner):
            continue  # private; but the special methods of a class are documented like its others
        with contextlib.suppress(Exception):  # descriptors of other classes may raise anything
            yield name, getattr(owner, name)


def _docstring(name: str, documented: object, *, is_function: bool = False) -> Iterator[Docstring]:
    text = getattr(documented, "__doc__", None)
    if isinstance(text, str) and text.strip():
        yield Docstring(name, text, is_function)
