"""What the files of a model folder define."""

from pathlib import Path
from typing import Any

import pytest

from semel.backends.models.layout import (
    LIBRARY_FILES,
    TOKENIZER_FILES,
    base_folder,
    canonical,
    dim_of,
    essential,
    files_like,
    lower_cases,
    max_tokens_of,
    modules_of,
    read_json,
    stored_precision,
    weight_files,
)
from semel.errors import ModelLoadError
from semel.values.model import Precision
from tests.support.model_files import write_files, write_model, write_sentence_model


def names(files: list[Path], root: Path) -> list[str]:
    return sorted(file.relative_to(root).as_posix() for file in files)


def test_a_missing_json_file_is_none_and_a_broken_one_names_itself(tmp_path: Path) -> None:
    assert read_json(tmp_path / "config.json") is None
    file = tmp_path / "broken.json"
    file.write_text("{")
    with pytest.raises(ModelLoadError, match=r"broken\.json is not JSON"):
        read_json(file)


def test_json_is_read_as_utf8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes('{"prompt": "Frage: ü"}'.encode())
    assert read_json(tmp_path / "config.json") == {"prompt": "Frage: ü"}


def test_equal_values_have_one_canonical_form() -> None:
    assert canonical({"b": 1, "a": [1, 2]}) == canonical({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'
    assert canonical([2, 1]) != canonical([1, 2])


@pytest.mark.parametrize("key", ["torch_dtype", "transformers_version", "use_cache", "_name_or_path", "max_seq_length"])
def test_keys_that_change_no_vector_are_left_out(key: str) -> None:
    assert essential({key: "x", "hidden_size": 8}) == {"hidden_size": 8}


def test_no_configuration_has_no_keys() -> None:
    assert essential(None) == {}


def test_weights_are_safetensors_or_else_bin_in_each_folder(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            "model.safetensors": b"",
            "pytorch_model.bin": b"the same weights again",
            "2_Dense/pytorch_model.bin": b"",
            "onnx/model.safetensors": b"",
            "openvino/model.bin": b"",
        },
    )
    assert names(weight_files(tmp_path), tmp_path) == ["2_Dense/pytorch_model.bin", "model.safetensors"]


def test_files_match_by_pattern_in_every_folder(tmp_path: Path) -> None:
    write_files(tmp_path, {"tokenizer.json": {}, "tokenizer_config.json": {}, "sub/vocab.txt": "a", "README.md": "b"})
    (tmp_path / "vocab.d").mkdir()
    found = files_like(tmp_path, TOKENIZER_FILES)
    assert names(found, tmp_path) == ["sub/vocab.txt", "tokenizer.json", "tokenizer_config.json"]
    assert files_like(tmp_path, LIBRARY_FILES) == []


def test_a_plain_transformer_is_its_own_base_and_has_no_modules(tmp_path: Path) -> None:
    write_model(tmp_path)
    assert base_folder(tmp_path) == tmp_path
    assert modules_of(tmp_path) is None


def test_modules_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    listed = [
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        {"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    write_files(tmp_path, {"modules.json": listed, "1_Pooling/config.json": {"pooling_mode": "cls"}})
    assert base_folder(tmp_path) == tmp_path / "0_Transformer"
    assert modules_of(tmp_path) == [["Pooling", {"pooling_mode": "cls"}, "1_Pooling"], ["Normalize", {}, "2_Normalize"]]


@pytest.mark.parametrize(("value", "lower"), [(True, True), (False, False), (None, False)])
def test_lower_casing_is_a_setting_of_the_library(tmp_path: Path, value: bool | None, lower: bool) -> None:
    write_files(tmp_path, {"sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": value}})
    assert lower_cases("m", tmp_path) is lower


def test_without_the_file_of_the_library_nothing_is_lower_cased(tmp_path: Path) -> None:
    assert lower_cases("m", tmp_path) is False


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tokenizer_args": {"use_fast": False}}, "tokenizer_args"),
        ({"model_kwargs": {"x": 1}, "query_expansion": {"y": 2}}, "model_kwargs, query_expansion"),
        ({"module_output_name": "pooler_output"}, "module_output_name"),
    ],
)
def test_settings_that_only_the_library_follows_are_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    write_files(tmp_path, {"sentence_bert_config.json": settings})
    with pytest.raises(ModelLoadError, match=f"model 'm'.*sets {named}, which only the torch backend follows"):
        lower_cases("m", tmp_path)


@pytest.mark.parametrize("settings", [{"tokenizer_args": {}}, {"module_output_name": "token_embeddings"}])
def test_settings_with_their_defaults_are_accepted(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_files(tmp_path, {"sentence_bert_config.json": settings})
    assert lower_cases("m", tmp_path) is False


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, Precision.INT4),
        ({"quantization": {"bits": 8}}, Precision.INT8),
        ({"quantization": {"bits": 6}}, None),
        ({"quantization": None}, None),
        ({}, None),
    ],
)
def test_the_precision_of_stored_weights(config: dict[str, Any], precision: Precision | None) -> None:
    assert stored_precision(config) is precision


@pytest.mark.parametrize(
    ("own", "tokenizer", "config", "limit"),
    [
        ({"max_seq_length": 32}, {"model_max_length": 128}, {"max_position_embeddings": 512}, 32),
        ({}, {"model_max_length": 128}, {"max_position_embeddings": 512}, 128),
        ({}, {"model_max_length": int(1e30)}, {"max_position_embeddings": 512}, 512),
        ({"max_seq_length": None}, None, {"max_position_embeddings": 512}, 512),
        (None, {"model_max_length": 128}, {}, 128),
        (None, None, {}, 512),
    ],
)
def test_the_limit_in_tokens_is_found_as_in_the_library(
    tmp_path: Path, own: Any, tokenizer: Any, config: dict[str, Any], limit: int
) -> None:
    files = {"sentence_bert_config.json": own, "tokenizer_config.json": tokenizer}
    write_files(tmp_path, {name: content for name, content in files.items() if content is not None})
    assert max_tokens_of(tmp_path, config) == limit


@pytest.mark.parametrize(
    ("modules", "dim"),
    [
        ([], 8),
        ([["Pooling", {"pooling_mode": "mean"}]], 8),
        ([["Pooling", {"pooling_mode": ["mean", "cls"]}]], 16),
        ([["Pooling", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}]], 8),
        ([["Pooling", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}]], 16),
        ([["Pooling", {"pooling_mode": "mean"}], ["Dense", {"out_features": 5}], ["Normalize", {}]], 5),
    ],
)
def test_the_length_of_a_vector_follows_the_modules(modules: list[Any], dim: int) -> None:
    assert dim_of(modules, {"hidden_size": 8}) == dim


@pytest.mark.parametrize("key", ["hidden_size", "dim", "d_model"])
def test_architectures_name_their_width_differently(key: str) -> None:
    assert dim_of([], {key: 24}) == 24


def test_an_unknown_width_is_zero() -> None:
    assert dim_of([["Pooling", {"pooling_mode": "mean"}]], {}) == 0


def test_the_files_of_a_sentence_model_are_read_together(tmp_path: Path) -> None:
    write_sentence_model(tmp_path, ("Pooling", {"pooling_mode": "cls"}), ("Dense", {"out_features": 3}))
    modules = modules_of(tmp_path)
    assert modules is not None
    assert dim_of([module[:2] for module in modules], {"hidden_size": 8}) == 3
