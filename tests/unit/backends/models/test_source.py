"""A model by its name."""

from pathlib import Path

import pytest

from semel.backends.models.digests import Digests
from semel.backends.models.source import find_model
from semel.errors import UnknownModelError
from semel.values.model import ModelEntry
from tests.support.model_files import source, write_files, write_model


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    entries = {"b": ModelEntry("fake:"), "a": ModelEntry("fake:")}
    with pytest.raises(UnknownModelError, match=r"no model named 'c' \(known: a, b\)"):
        find_model("c", entries, models_dir=None, digests=Digests(None))


def test_finding_a_model_does_not_need_its_files() -> None:
    found = find_model("a", {"a": ModelEntry("/nowhere")}, models_dir=None, digests=Digests(None))
    assert (found.name, found.entry.source) == ("a", "/nowhere")


def test_the_files_are_read_once(tmp_path: Path) -> None:
    model = source(write_model(tmp_path))
    before = model.described
    write_files(tmp_path, {"model.safetensors": b"other"})
    assert model.described is before
    assert source(tmp_path).described != before
