"""Text Embeddings Inference's requests."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from semel.api.dialects.tei import TeiEmbedRequest, TeiRerankRequest, TeiSimilarityRequest, TeiTokenizeRequest

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
    assert TeiSimilarityRequest.model_validate(SOUND[TeiSimilarityRequest]).parameters.truncate is False


def test_a_null_truncate_is_accepted() -> None:
    assert not TeiEmbedRequest(inputs="a", truncate=None).truncate


@pytest.mark.parametrize("direction", ["Right", "right"])
def test_texts_are_cut_at_their_end(direction: str) -> None:
    sound = {"inputs": "a", "truncation_direction": direction}
    assert TeiEmbedRequest.model_validate(sound).truncation_direction == direction


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (TeiEmbedRequest, {"truncation_direction": "Left"}),
        (TeiEmbedRequest, {"truncate": "perhaps"}),
        (TeiEmbedRequest, {"dimensions": 0}),
        (TeiEmbedRequest, {"normalize": None}),
        (TeiRerankRequest, {"truncation_direction": "left"}),
        (TeiRerankRequest, {"texts": "a"}),
        (TeiRerankRequest, {"query": None}),
        (TeiSimilarityRequest, {"inputs": {"source_sentence": "a"}}),
        (TeiSimilarityRequest, {"parameters": {"truncation_direction": "Left"}}),
        (TeiTokenizeRequest, {"add_special_tokens": None}),
    ],
)
def test_a_field_with_a_wrong_value_is_refused(kind: type[BaseModel], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate({**SOUND[kind], **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))
