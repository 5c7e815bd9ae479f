"""The docstrings of a small standard library of the test's own."""

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from semel.cli.work.docstrings import Docstring, _documented, standard_library_docstrings

SOURCE = '''
"""The module."""
import sys as imported
import warnings

print("printed on import")
warnings.warn("old", DeprecationWarning)
CONSTANT = 7

def function():
    """A function.

    More about it."""

def bare():
    pass

def blank():
    """   """

def _private():
    """Not for users."""

class Base:
    """A class."""

    def method(self):
        """A method."""

    def __len__(self):
        """A special method."""

class Child(Base):
    pass

class _Awkward:
    def __get__(self, *_):
        raise RuntimeError("do not look")

class Broken:
    """Its attribute raises."""
    attribute = _Awkward()
'''


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A standard library with one good module, one that does not import, a private one and one to be left out."""
    names = {"good_module", "bad_module", "_private_module", "antigravity", "not_installed_module"}
    (tmp_path / "good_module.py").write_text(SOURCE)
    (tmp_path / "bad_module.py").write_text("raise OSError('no C library')")
    for name in ("_private_module", "antigravity"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stdlib_module_names", frozenset(names))
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("library")
def test_documented_public_names_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    found = {docstring.name: docstring for docstring in standard_library_docstrings()}
    assert found["good_module"].text == "The module."
    assert found["good_module.function"] == Docstring(
        "good_module.function", "A function.\n\n    More about it.", is_function=True
    )
    assert found["good_module.Base.method"] == Docstring("good_module.Base.method", "A method.")
    assert found["good_module.Base.__len__"].text == "A special method."
    absent = {"good_module.bare", "good_module.blank", "good_module._private", "good_module.imported"}
    assert not absent & set(found)
    assert capsys.readouterr() == ("", ""), "nothing that a module prints is shown"


@pytest.mark.usefixtures("library")
def test_inherited_docstrings_are_duplicates() -> None:
    texts = {docstring.name: docstring.text for docstring in standard_library_docstrings()}
    assert texts["good_module.Child.method"] == texts["good_module.Base.method"]


@pytest.mark.usefixtures("library")
def test_an_attribute_that_raises_is_left_out() -> None:
    names = {docstring.name for docstring in standard_library_docstrings()}
    assert "good_module.Broken" in names
    assert "good_module.Broken.attribute" not in names


def test_only_functions_of_a_module_are_marked_as_functions() -> None:
    import json

    found = {docstring.name: docstring for docstring in _documented(json)}
    assert found["json.loads"].is_function
    assert not found["json.JSONDecoder"].is_function
    assert not found["json.JSONDecoder.decode"].is_function


def test_a_module_without_docstrings_has_none() -> None:
    assert list(_documented(types.ModuleType("bare"))) == []


@pytest.mark.parametrize("text", ["First line\nof two.\n\nDetails.", "\n  First line\nof two.\n\n\nDetails.\n"])
def test_a_summary_is_the_name_and_the_first_paragraph(text: str) -> None:
    assert Docstring("json.loads", text).summary == "json.loads: First line\nof two."
