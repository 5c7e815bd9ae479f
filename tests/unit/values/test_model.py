"""Models of the configuration, and the vector spaces that they fill."""

import json

import pytest

from semel.errors import BadInputError
from semel.values.model import ModelEntry, for_device
from semel.values.text import Pair
from tests.support.values import SPEC, space


def test_a_model_with_a_source_for_a_device_is_another_model_there() -> None:
    entries = {"both": ModelEntry("hub/full", source_mlx="hub/4bit"), "plain": ModelEntry("hub/plain")}
    served = for_device(entries, "mlx")
    assert {name: entry.source for name, entry in served.items()} == {"both@mlx": "hub/4bit", "plain": "hub/plain"}


def test_other_devices_keep_the_name_and_the_source() -> None:
    entries = {"both": ModelEntry("hub/full", source_mlx="hub/4bit")}
    assert for_device(entries, "cpu") == entries


def test_the_number_of_a_device_does_not_hide_its_source() -> None:
    entries = {"both": ModelEntry("hub/full", source_cuda="hub/int8")}
    assert for_device(entries, "cuda:1")["both@cuda"].source == "hub/int8"


@pytest.mark.parametrize("kind", ["mlx", "cuda", "mps", "vulkan", "cpu"])
def test_a_source_for_any_device_is_noticed(kind: str) -> None:
    entry = ModelEntry("hub/full", **{f"source_{kind}": "hub/other"})  # type: ignore[arg-type]
    assert entry.has_own_sources
    assert f"m@{kind}" in for_device({"m": entry}, kind)


def test_a_model_without_such_a_source_has_none() -> None:
    assert not ModelEntry("hub/full").has_own_sources


def test_the_canonical_json_is_ascii_without_spaces_and_with_sorted_keys() -> None:
    made = space(prompt="für ").spec_json
    assert made.isascii()
    assert ": " not in made
    assert list(json.loads(made)) == sorted(json.loads(made))


def test_the_canonical_json_names_its_format() -> None:
    assert json.loads(SPEC.canonical_json())["format"] == 1


def test_spaces_of_one_model_with_other_prompts_share_their_weights() -> None:
    assert space().fingerprint != space(prompt="query: ").fingerprint
    assert space().weights == space(prompt="query: ").weights == "w1"


def test_a_text_for_a_cross_encoder_is_refused_with_the_right_place_for_it() -> None:
    with pytest.raises(BadInputError, match=r"is a cross-encoder: .*computes no vectors; send .*/v1/rerank"):
        space(1, kind="cross-encoder").check_input("a text")


def test_a_pair_for_an_embedding_model_is_refused() -> None:
    with pytest.raises(
        BadInputError,
        match="does not score pairs: it computes vectors; send texts to /v1/embeddings, or a job of texts",
    ):
        space().check_input(Pair("query", "document"))


def test_the_right_inputs_pass() -> None:
    space().check_input("a text")
    space(1, kind="cross-encoder").check_input(Pair("query", "document"))
