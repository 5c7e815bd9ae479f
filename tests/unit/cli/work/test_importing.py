"""Vectors from files, into the cache of this machine."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.cli.work.importing import import_file
from semel.errors import BadInputError
from semel.local import Local
from semel.settings import Settings, load_settings
from semel.values.text import Outcome
from semel.values.vectors import Vectors
from semel.vector_import import Imported

TEXTS = [f"made elsewhere {i}" for i in range(600)]
"""More than the rows of a file that are taken at a time."""


@pytest.fixture
def settings(folder: Path) -> Settings:
    return load_settings(home=folder / "here")


@pytest.fixture
def elsewhere(folder: Path) -> Vectors:
    """The vectors of TEXTS, computed with another cache."""
    with Local(settings=load_settings(home=folder / "elsewhere"), device="auto") as there:
        return there.pipeline.embed(there.space("fake", ""), TEXTS).vectors


def jsonl(folder: Path, rows: Vectors) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": t, "embedding": r.tolist()}) + "\n" for t, r in zip(TEXTS, rows, strict=True))
    )
    return path


def parquet(folder: Path, rows: Vectors) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"text": TEXTS, "embedding": rows.tolist()}), path)
    return path


@pytest.mark.parametrize("write", [jsonl, parquet])
def test_every_row_becomes_a_hit(settings: Settings, folder: Path, elsewhere: Vectors, write: object) -> None:
    source = write(folder, elsewhere)  # type: ignore[operator]
    done = import_file(settings, source, model=None, prompt_name="")
    assert done.stored + done.present == len(TEXTS)
    assert 0 < done.compared < len(TEXTS) // 10
    assert done.present == done.compared, "these were computed here"
    with Local(settings=settings, device="auto") as here:
        embedded = here.pipeline.embed(here.space("fake", ""), TEXTS)
    assert set(embedded.outcomes) == {Outcome.HIT}
    np.testing.assert_array_equal(embedded.vectors, elsewhere)
    assert import_file(settings, source, model="fake", prompt_name="") == Imported(0, len(TEXTS))


def test_vectors_of_another_prompt_are_refused(settings: Settings, folder: Path, elsewhere: Vectors) -> None:
    with pytest.raises(BadInputError, match="'prompted'"):
        import_file(settings, jsonl(folder, elsewhere), model="prompted", prompt_name="query")


def test_an_unknown_prompt_is_refused(settings: Settings, folder: Path, elsewhere: Vectors) -> None:
    with pytest.raises(BadInputError, match="has no prompt 'nope'"):
        import_file(settings, jsonl(folder, elsewhere), model=None, prompt_name="nope")


def test_a_folder_is_no_file(settings: Settings, folder: Path) -> None:
    with pytest.raises(BadInputError, match="there is no file"):
        import_file(settings, folder, model=None, prompt_name="")
