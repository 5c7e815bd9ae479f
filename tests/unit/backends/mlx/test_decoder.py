"""Configurations, masks and weights of decoders on mlx-lm; tests/integration/test_mlx.py compares whole models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from semel.backends.mlx import decoder as decoder_module
from semel.backends.mlx.decoder import Decoder
from semel.errors import ModelLoadError

FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "mistral", "sliding_window": 4096}, 4096),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "llama"}, None),
        ({"model_type": "qwen3", "sliding_window": 4096, "use_sliding_window": False}, None),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}, 4096),
    ],
)
def test_a_window_counts_only_where_the_model_uses_it(config: dict[str, Any], window: int | None) -> None:
    assert decoder_module._window(config) == window


@pytest.mark.parametrize(
    ("config", "pattern"),
    [
        ({"layer_types": [SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL]}, 3),
        ({"layer_types": [SLIDING, SLIDING, FULL, SLIDING]}, 3),
        ({"layer_types": [FULL, FULL]}, 1),
        ({"layer_types": [SLIDING] * 4}, 5),
        ({"sliding_window_pattern": 4}, 4),
        ({"_sliding_window_pattern": 5}, 5),
        ({}, 6),
    ],
)
def test_every_nth_layer_of_gemma3_has_full_attention(config: dict[str, Any], pattern: int) -> None:
    assert decoder_module._pattern(config) == pattern


@pytest.mark.parametrize("kinds", [[SLIDING, FULL, FULL], [FULL, SLIDING, FULL]])
def test_layers_without_a_pattern_are_refused(kinds: list[str]) -> None:
    with pytest.raises(ValueError, match="follow no pattern"):
        decoder_module._pattern({"layer_types": kinds})


@pytest.mark.parametrize(
    ("config", "flat"),
    [
        ({"model_type": "llama"}, {}),
        ({"model_type": "llama", "rope_parameters": {"rope_theta": 5e5}}, {"rope_theta": 5e5}),
        (
            {"model_type": "llama", "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8}},
        ),
        (
            {
                "model_type": "gemma3_text",
                "layer_types": [SLIDING, FULL],
                "rope_parameters": {FULL: {"rope_theta": 1e6}, SLIDING: {"rope_theta": 1e4}},
            },
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 2},
        ),
    ],
)
def test_nested_settings_are_flattened_for_mlx_lm(config: dict[str, Any], flat: dict[str, Any]) -> None:
    assert decoder_module._flat(config) == flat


@pytest.mark.parametrize(
    ("config", "max_tokens", "why"),
    [
        ({"model_type": "qwen2", "is_causal": False}, 32, "attends in both directions, which the MLX backend supports"),
        ({"model_type": "llama", "use_bidirectional_attention": True}, 32, "attends in both directions"),
        ({"model_type": "mistral", "sliding_window": 16}, 17, "attends to only 16 tokens .*: add max_tokens = 16"),
    ],
)
def test_a_variant_that_mlx_lm_lacks_is_refused(
    tmp_path: Path, config: dict[str, Any], max_tokens: int, why: str
) -> None:
    with pytest.raises(ModelLoadError, match=f"model 'm' {why}"):
        Decoder("m", tmp_path, config, max_tokens=max_tokens)


@pytest.mark.parametrize("error", [ValueError("Missing 3 parameters"), KeyError("head_dim"), FileNotFoundError("x")])
def test_weights_that_mlx_lm_does_not_load_are_refused(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_model(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(decoder_module, "load_model", load_model)
    with pytest.raises(ModelLoadError, match=f"model 'm' in {tmp_path} cannot be loaded by mlx-lm"):
        Decoder("m", tmp_path, {"model_type": "llama"}, max_tokens=32)


class Model(dict):  # type: ignore[type-arg]
    """mlx-lm's class of a model, which renames a weight."""

    def sanitize(self, weights: dict[str, Any]) -> dict[str, Any]:
        return {name.replace("old", "new"): values for name, values in weights.items()}


def sanitised(weights: list[str], *, with_head: bool, model: type = Model, **config: Any) -> tuple[list[str], Any]:
    def import_module(name: str) -> Any:
        imported.append(name)
        return SimpleNamespace(Model=model, ModelArgs="arguments")

    imported: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoder_module, "importlib", SimpleNamespace(import_module=import_module))
        kind, arguments = decoder_module._classes({"model_type": "llama", **config}, with_head=with_head)
    assert arguments == "arguments"
    made = kind()
    made["lm_head"] = "a layer"  # type: ignore[index]
    return list(made.sanitize(dict.fromkeys(weights))), (imported, "lm_head" in made)  # type: ignore[operator]


def test_a_bare_transformer_gets_the_names_of_a_language_model() -> None:
    names, _ = sanitised(["embed_tokens.weight", "model.layers.0.old", "lm_head.weight"], with_head=True)
    assert names == ["model.embed_tokens.weight", "model.layers.0.new", "lm_head.weight"]


@pytest.mark.parametrize("with_head", [True, False])
def test_the_language_head_is_kept_only_for_a_reranker(with_head: bool) -> None:
    names, (_, has_head) = sanitised(["model.norm.weight", "lm_head.weight"], with_head=with_head)
    assert ("lm_head.weight" in names, has_head) == (with_head, with_head)


def test_mistral_is_built_from_the_layers_of_llama() -> None:
    for kind in ("mistral", "llama"):
        _, (imported, _) = sanitised([], with_head=False, model_type=kind)
        assert imported == ["mlx_lm.models.llama"]


def test_a_model_class_without_renaming_is_accepted() -> None:
    names, _ = sanitised(["norm.weight"], with_head=False, model=dict)
    assert names == ["model.norm.weight"]


class Layer:
    """Records the mask that it gets."""

    def __init__(self) -> None:
        self.mask: Any = None

    def __call__(self, hidden: Any, mask: Any, cache: None) -> Any:
        self.mask = mask
        return hidden


def decoder(config: dict[str, Any], *, layers: int = 2, **module: Any) -> tuple[Decoder, list[Layer]]:
    """A decoder without weights whose layers do nothing."""
    made = Decoder.__new__(Decoder)
    made._config = {"hidden_size": 16, "sliding_window": 4, **config}
    made._kind = made._config["model_type"]
    made._bidirectional = bool(config.get("use_bidirectional_attention"))
    recorded = [Layer() for _ in range(layers)]
    inner = SimpleNamespace(
        embed_tokens=lambda ids: ids[:, :, None].astype(mx.float32),
        layers=recorded,
        norm=lambda hidden: hidden,
        sliding_window_pattern=2,
    )
    made.module = SimpleNamespace(model=inner, **module)
    return made, recorded


def visible(mask: Any, token: int) -> list[int]:
    """The tokens that one token attends to, in the first text."""
    rows = mask[0, 0] if mask.ndim == 4 else mask
    row = rows[token if rows.shape[0] > 1 else 0]
    return [i for i, seen in enumerate(row.tolist()) if seen]


def test_gemma3_alternates_between_near_and_all_earlier_tokens() -> None:
    made, (near, every) = decoder({"model_type": "gemma3_text"})
    hidden = made(mx.array([[1, 2, 3, 4, 5, 6]]), mx.ones((1, 6), mx.int32))
    assert visible(near.mask, 5) == [2, 3, 4, 5]
    assert visible(every.mask, 5) == [0, 1, 2, 3, 4, 5]
    assert visible(every.mask, 2) == [0, 1, 2]
    assert hidden[0, :, 0].tolist() == [4, 8, 12, 16, 20, 24], "embeddings are scaled by the root of the width"


def test_embeddinggemma_attends_in_both_directions_but_not_to_padding() -> None:
    made, (near, every) = decoder({"model_type": "gemma3_text", "use_bidirectional_attention": True})
    made(mx.array([[1, 2, 3, 4, 5, 0]]), mx.array([[1, 1, 1, 1, 1, 0]]))
    assert visible(every.mask, 0) == [0, 1, 2, 3, 4]
    assert visible(near.mask, 2) == [0, 1, 2, 3, 4]
    assert visible(near.mask, 0) == [0, 1, 2]


def test_other_decoders_run_as_mlx_lm_does() -> None:
    made, _ = decoder({"model_type": "llama"})
    made.module.model = lambda ids: ids + 1
    assert made(mx.array([[1, 2]]), mx.ones((1, 2))).tolist() == [[2, 3]]


def test_logits_come_from_the_head_or_from_tied_embeddings() -> None:
    headed, _ = decoder({"model_type": "llama"}, lm_head=lambda hidden: ("head", hidden))
    assert headed.logits("hidden") == ("head", "hidden")
    tied, _ = decoder({"model_type": "llama"})
    tied.module.model.embed_tokens = SimpleNamespace(as_linear=lambda hidden: ("embeddings", hidden))
    assert tied.logits("hidden") == ("embeddings", "hidden")
