"""Text Embeddings Inference's requests."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from semel.api.dialects.tei import (
    TeiEmbedRequest,
    TeiParameters,
    TeiRerankRequest,
    TeiSimilarityRequest,
    TeiTokenizeRequest,
    variant_of,
)
from semel.values.variant import AS_DEFINED, Variant

SOUND: dict[type[BaseModel], dict[str, Any]] = {
    TeiEmbedRequest: {"inputs": ["a"]},
    TeiRerankRequest: {"query": "q", "texts": ["a"]},
    TeiSimilarityRequest: {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    TeiTokenizeRequest: {"inputs": "a"},
}


@pytest.mark.parametrize("kind", SOUND)
def test_the_example_of_the_documentation_is_a_sound_request(kind: type[BaseModel]) -> None:
    kind.model_validate(kind.model_json_schema()["example"])
    kind.model_validate(SOUND[kind])


def test_a_text_above_the_limit_is_refused_unless_truncation_is_requested() -> None:
    assert TeiEmbedRequest(inputs="a").truncate is False
    assert TeiRerankRequest(query="q", texts=["a"]).truncate is False
    assert TeiParameters().truncate is False


def test_a_null_truncate_is_accepted() -> None:
    assert not TeiEmbedRequest(inputs="a", truncate=None).truncate


@pytest.mark.parametrize(
    ("asked", "variant"),
    [
        ({}, AS_DEFINED),
        ({"truncation_direction": "Right"}, AS_DEFINED),
        ({"truncation_direction": "right"}, AS_DEFINED),
        ({"truncation_direction": "Left"}, Variant(truncate_side="left")),
        ({"truncation_direction": "left"}, Variant(truncate_side="left")),
    ],
)
def test_texts_are_cut_at_their_end_unless_the_other_side_is_requested(asked: dict[str, str], variant: Variant) -> None:
    embed = TeiEmbedRequest.model_validate({"inputs": "a", **asked})
    rerank = TeiRerankRequest.model_validate({"query": "q", "texts": ["a"], **asked})
    parameters = TeiParameters.model_validate(asked)
    for request in (embed, rerank, parameters):
        assert variant_of(request.truncation_direction) == variant


def test_the_length_of_vectors_is_part_of_the_variant() -> None:
    assert variant_of("Left", normalize=False) == Variant(truncate_side="left", normalize=False)


def test_parameters_may_be_null_or_left_out() -> None:
    sound = SOUND[TeiSimilarityRequest]
    for request in (sound, {**sound, "parameters": None}):
        assert TeiSimilarityRequest.model_validate(request).parameters is None


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TeiEmbedRequest, {"truncation_direction": "LEFT"}),
        (TeiEmbedRequest, {"truncate": "perhaps"}),
        (TeiEmbedRequest, {"dimensions": 0}),
        (TeiRerankRequest, {"truncation_direction": "middle"}),
        (TeiRerankRequest, {"texts": "a"}),
        (TeiRerankRequest, {"query": None}),
        (TeiSimilarityRequest, {"inputs": {"source_sentence": "a"}}),
        (TeiSimilarityRequest, {"parameters": {"truncation_direction": "both"}}),
    ],
)
def test_a_field_with_a_wrong_value_is_refused(kind: type[BaseModel], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({**SOUND[kind], **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))
