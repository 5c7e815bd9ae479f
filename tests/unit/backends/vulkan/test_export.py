"""Exports are read, refused and written whole; tests/integration/test_vulkan.py exports and runs models."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from semel.backends.vulkan import export
from semel.backends.vulkan.export import exported
from semel.errors import ModelLoadError
from tests.support.model_files import source, write_model

ABOUT = {"heads": 2, "inner": 16, "segments": True}
CHECK = {"ids": np.ones((3, 96), np.int64), "mask": np.zeros((3, 96), np.int64), "answer": np.full((3, 1), 0.5)}


def fake_export(calls: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export write a small table and no real graph."""

    def write(source: object, target: Path) -> None:
        calls.append(target)
        export._write(target, graph=b"onnx", words=np.eye(4, dtype=np.float32), check=CHECK, about=ABOUT)

    monkeypatch.setattr(export, "_export", write)


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are exported to."""
    calls: list[Path] = []
    fake_export(calls, monkeypatch)
    return calls


def test_an_export_is_read_as_it_was_written(tmp_path: Path, exports: list[Path]) -> None:
    found = exported(source(write_model(tmp_path / "model")), tmp_path)
    assert (found.graph, found.heads, found.inner, found.segments) == (b"onnx", 2, 16, True)
    assert found.check_answer.tolist() == CHECK["answer"].tolist()
    assert found.words.tolist() == np.eye(4).tolist()
    assert isinstance(found.words, np.memmap), "a table of 250,000 words is not read whole"


def test_a_model_is_exported_once(tmp_path: Path, exports: list[Path]) -> None:
    model = source(write_model(tmp_path / "model"))
    for _ in range(2):
        exported(model, tmp_path / "converted")
    assert len(exports) == 1
    assert exports[0].name.startswith("bert-")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"files": {"model.safetensors": b"other"}}, True),
        ({"layer_norm_eps": 1e-6}, True),
        ({"files": {"tokenizer.json": {"words": 2}}}, False),
    ],
)
def test_only_other_weights_or_layers_are_exported_again(
    tmp_path: Path, exports: list[Path], change: dict[str, Any], again: bool
) -> None:
    exported(source(write_model(tmp_path / "model")), tmp_path / "converted")
    exported(source(write_model(tmp_path / "model", **change)), tmp_path / "converted")
    assert (len(exports) == 2) is again


def test_an_export_that_was_cut_off_is_made_again(
    tmp_path: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`about.json` is written last."""
    real = export.atomic_write
    written: list[str] = []

    def failing(path: Path) -> Any:
        written.append(path.name)
        if path.name == "about.json":
            raise OSError("the disk is full")
        return real(path)

    model = source(write_model(tmp_path / "model"))
    monkeypatch.setattr(export, "atomic_write", failing)
    with pytest.raises(OSError, match="the disk is full"):
        exported(model, tmp_path / "converted")
    assert set(written[:-1]) == {"model.onnx", "words.npy", "check.npz"}
    monkeypatch.setattr(export, "atomic_write", real)
    assert exported(model, tmp_path / "converted").graph == b"onnx"
    assert len(exports) == 2


@pytest.mark.parametrize("model_type", ["qwen3", "t5", ""])
def test_another_architecture_names_the_backend_that_runs_it(
    tmp_path: Path, exports: list[Path], model_type: str
) -> None:
    model = source(write_model(tmp_path / "model", model_type=model_type))
    with pytest.raises(
        ModelLoadError, match=rf"is a {model_type}, which the Vulkan backend does not run .*--device cpu"
    ):
        exported(model, tmp_path)
    assert exports == []


def test_the_first_export_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelLoadError, match=r"must be exported once, which needs onnx: pip install 'semel\[vulkan\]'"):
        exported(source(write_model(tmp_path / "model")), tmp_path)


def loader(missing: list[str], error: Exception | None = None) -> Any:
    def from_pretrained(folder: str, **options: Any) -> Any:
        if error is not None:
            raise error
        assert (options["local_files_only"], options["attn_implementation"]) == (True, "eager")
        return SimpleNamespace(eval=lambda: None), {"missing_keys": missing}

    return SimpleNamespace(from_pretrained=from_pretrained)


def test_a_model_with_weights_of_its_own_files_only_is_loaded(tmp_path: Path) -> None:
    model = source(write_model(tmp_path))
    export._load(model, loader([]))
    export._load(model, loader(["pooler.dense.weight"]))  # an embedding does not use it
    with pytest.raises(ModelLoadError, match=r"its files lack encoder\.x, and semel does not initialise weights at"):
        export._load(model, loader(["encoder.x", "pooler.dense.weight"]))


def test_a_cross_encoder_needs_its_pooler(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"its files lack pooler\.dense\.weight"):
        export._load(source(write_model(tmp_path), kind="cross-encoder"), loader(["pooler.dense.weight"]))


def test_a_model_that_cannot_be_loaded_names_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=f"model 'm' in {tmp_path} cannot be loaded: broken"):
        export._load(source(write_model(tmp_path)), loader([], OSError("broken")))


@pytest.mark.parametrize(("max_tokens", "lengths"), [(512, [96, 70, 5]), (64, [64, 64, 5]), (4, [4, 4, 4])])
def test_a_session_is_checked_with_long_and_padded_texts(max_tokens: int, lengths: list[int]) -> None:
    ids, mask = export._check_texts(100, max_tokens=max_tokens)
    assert mask.sum(axis=1).tolist() == lengths
    assert ids.shape == mask.shape == (3, max(lengths))
    assert set(ids[mask == 0].tolist()) <= {1}, "RoBERTa counts its positions by the padding id"
    assert (ids[mask == 1] >= 5).all()
    assert (ids < 100).all()
    assert (export._check_texts(100, max_tokens=max_tokens)[0] == ids).all()


class Transformer(torch.nn.Module):
    """Returns its inputs as its result."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)

    def forward(self, **inputs: Any) -> Any:
        return SimpleNamespace(last_hidden_state=inputs)


def masks(*, segments: Any = None, **config: Any) -> Any:
    """The inputs of a transformer for one text of four tokens, the last of which is padding."""
    graph = export._wrapper(Transformer(**config))
    return graph(torch.zeros(1, 4, 2), torch.tensor([[1.0, 1.0, 1.0, 0.0]]), segments)


def visible(bias: Any, token: int) -> list[int]:
    """The tokens whose scores one token keeps; the scores of the others fall below any number."""
    row = bias[0, 0][token if bias.shape[2] > 1 else 0].tolist()
    assert all(value == 0.0 or value < -1e38 for value in row)
    return [i for i, value in enumerate(row) if value == 0.0]


def test_masks_are_numbers_that_hide_the_padding() -> None:
    assert visible(masks(model_type="bert")["attention_mask"], 0) == [0, 1, 2]


def test_modernbert_has_a_mask_for_its_window_too() -> None:
    bias = masks(model_type="modernbert", sliding_window=1)["attention_mask"]
    assert visible(bias["full_attention"], 0) == [0, 1, 2]
    assert visible(bias["sliding_attention"], 0) == [0, 1]
    assert visible(bias["sliding_attention"], 2) == [1, 2]


def test_segments_are_passed_on_only_if_there_are_some() -> None:
    assert "token_type_ids" not in masks(model_type="bert")
    assert masks(model_type="bert", segments="segments")["token_type_ids"] == "segments"


def test_another_format_is_exported_next_to_the_old_one(
    tmp_path: Path, exports: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = source(write_model(tmp_path / "model"))
    exported(model, tmp_path / "converted")
    monkeypatch.setattr(export, "_FORMAT", export._FORMAT + 1)
    exported(model, tmp_path / "converted")
    assert len(set(exports)) == 2
