"""OpenAI's request and answer."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from semel.api.dialects.number_types import NumberType, quantized
from semel.api.dialects.openai import EmbeddingsRequest, EmbeddingsResponse, embeddings_body
from semel.api.edge.as_json import as_json
from semel.values.variant import AS_DEFINED, Variant
from tests.support.values import vectors

VECTORS = vectors(3, 4)
EIGHT = vectors(3, 8)


def test_the_answer_has_one_object_per_text_in_order() -> None:
    body = embeddings_body(EmbeddingsRequest(input=["a", "b", "c"]), VECTORS, model="m", tokens=7)
    read = json.loads(as_json(body))
    EmbeddingsResponse.model_validate(read)  # the shape that the OpenAPI document promises
    assert (read["object"], read["model"]) == ("list", "m")
    assert read["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert [(item["object"], item["index"]) for item in read["data"]] == [("embedding", i) for i in range(3)]
    assert np.array_equal(np.array([item["embedding"] for item in read["data"]], np.float32), VECTORS)


def test_base64_is_float32_little_endian() -> None:
    request = EmbeddingsRequest(input=["a"], encoding_format="base64")
    body = json.loads(as_json(embeddings_body(request, VECTORS, model="m", tokens=7)))
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in body["data"]]
    assert np.array_equal(np.stack(rows), VECTORS)


def test_a_null_format_means_numbers() -> None:
    body = embeddings_body(EmbeddingsRequest(input="a", encoding_format=None), VECTORS, model="m", tokens=7)
    assert isinstance(body["data"][0]["embedding"], np.ndarray)


@pytest.mark.parametrize(("name", "kind"), [("output_dtype", "int8"), ("embedding_type", "binary")])
def test_numbers_come_in_the_requested_type(name: str, kind: NumberType) -> None:
    request = EmbeddingsRequest.model_validate({"input": ["a"], name: kind})
    body = json.loads(as_json(embeddings_body(request, EIGHT, model="m", tokens=7)))
    assert [item["embedding"] for item in body["data"]] == quantized(EIGHT, kind).tolist()


def test_base64_holds_the_requested_type_too() -> None:
    request = EmbeddingsRequest.model_validate({"input": ["a"], "output_dtype": "int8", "encoding_format": "base64"})
    body = embeddings_body(request, EIGHT, model="m", tokens=7)
    rows = [np.frombuffer(base64.b64decode(item["embedding"]), np.int8) for item in body["data"]]
    assert np.array_equal(np.stack(rows), quantized(EIGHT, "int8"))


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"output_dimension": 2}, "dimensions", 2),
        ({"dimensions": 2, "output_dimension": 2}, "dimensions", 2),
        ({"truncation": False}, "truncate", False),
        ({"truncation": True}, "truncate", True),
        ({"truncation": None}, "truncate", True),
        ({"embedding_type": "float"}, "output_dtype", "float"),
        ({"embedding_type": "base64"}, "encoding_format", "base64"),
        ({"embedding_type": "base64"}, "output_dtype", None),
        ({"embedding_type": "binary", "output_dtype": None}, "output_dtype", "binary"),
    ],
)
def test_the_fields_of_other_dialects_stand_for_those_of_this_one(
    given: dict[str, Any], field: str, value: Any
) -> None:
    assert getattr(EmbeddingsRequest.model_validate({"input": "a", **given}), field) == value


@pytest.mark.parametrize(
    ("given", "variant"),
    [
        ({}, AS_DEFINED),
        ({"max_tokens": 5}, Variant(max_tokens=5)),
        ({"truncate_prompt_tokens": 5}, Variant(max_tokens=5)),
        ({"truncate_prompt_tokens": 5, "max_tokens": 5}, Variant(max_tokens=5)),
        ({"truncate_prompt_tokens": -1}, AS_DEFINED),
        ({"truncate_side": "left"}, Variant(truncate_side="left")),
        ({"truncation_side": "left"}, Variant(truncate_side="left")),
        ({"normalize": False}, Variant(normalize=False)),
        ({"normalized": False}, Variant(normalize=False)),
        ({"normalized": True}, Variant(normalize=True)),
        ({"document_tokens": 3}, Variant(document_tokens=3)),
    ],
)
def test_a_request_can_depart_from_the_models_definition(given: dict[str, Any], variant: Variant) -> None:
    assert EmbeddingsRequest.model_validate({"input": "a", **given}).variant == variant


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"dimensions": 2, "output_dimension": 3}, "dimensions and output_dimension"),
        ({"truncate": True, "truncation": False}, "truncate and truncation"),
        ({"output_dtype": "int8", "embedding_type": "binary"}, "output_dtype and embedding_type"),
        ({"encoding_format": "float", "embedding_type": "base64"}, "encoding_format and embedding_type"),
        ({"normalize": True, "normalized": False}, "normalize and normalized"),
        ({"max_tokens": 2, "truncate_prompt_tokens": 3}, "max_tokens and truncate_prompt_tokens"),
        ({"truncate_side": "right", "truncation_side": "left"}, "truncate_side and truncation_side"),
    ],
)
def test_two_names_of_one_parameter_may_not_disagree(given: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=f"{names} are two names of one parameter"):
        EmbeddingsRequest.model_validate({"input": "a", **given})


def test_a_limit_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="truncate_prompt_tokens must be -1, or at least 1"):
        EmbeddingsRequest.model_validate({"input": "a", "truncate_prompt_tokens": 0})


@pytest.mark.parametrize(
    "given",
    [{"late_chunking": False}, {"add_special_tokens": True}, {"embed_dtype": "float32"}, {"endianness": "little"},
     {"endianness": "native"}, {"modality": "text"}],
)  # fmt: skip
def test_a_field_that_asks_for_what_semel_does_anyway_changes_nothing(given: dict[str, Any]) -> None:
    request = EmbeddingsRequest.model_validate({"input": "a", **given})
    plain = EmbeddingsRequest(input="a").model_dump()
    assert {**request.model_dump(), **dict.fromkeys(given)} == plain


def test_a_request_needs_nothing_but_its_input() -> None:
    request = EmbeddingsRequest.model_validate({"input": "a"})
    assert (request.model, request.encoding_format, request.dimensions) == (None, "float", None)
    assert (request.input_type, request.prompt_name, request.truncate) == (None, "", True)


@pytest.mark.parametrize(
    "wrong",
    [{"encoding_format": "hex"}, {"dimensions": 0}, {"dimensions": "many"}, {"input_type": "question"}, {"model": 3},
     {"truncate": "perhaps"}, {"prompt_name": 3}, {"max_tokens": 0}, {"document_tokens": 0},
     {"truncate_side": "middle"}, {"normalize": "perhaps"}, {"output_dtype": "int4"}, {"truncate_prompt_tokens": -2}],
)  # fmt: skip
def test_a_field_with_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        EmbeddingsRequest.model_validate({"input": "a", **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))
