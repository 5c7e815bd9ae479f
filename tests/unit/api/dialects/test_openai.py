"""OpenAI's request and answer."""

import base64
import json

import numpy as np
import pytest
from pydantic import ValidationError

from semel.api.dialects.openai import EmbeddingsRequest, EmbeddingsResponse, embeddings_body
from semel.api.edge.as_json import as_json
from tests.support.values import vectors

VECTORS = vectors(3, 4)


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


def test_a_request_needs_nothing_but_its_input() -> None:
    request = EmbeddingsRequest.model_validate({"input": "a"})
    assert (request.model, request.encoding_format, request.dimensions) == (None, "float", None)
    assert (request.input_type, request.prompt_name, request.truncate) == (None, "", True)


@pytest.mark.parametrize(
    "wrong",
    [{"encoding_format": "hex"}, {"dimensions": 0}, {"dimensions": "many"}, {"input_type": "question"}, {"model": 3},
     {"truncate": "perhaps"}, {"prompt_name": None}],
)  # fmt: skip
def test_a_field_with_a_wrong_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        EmbeddingsRequest.model_validate({"input": "a", **wrong})
    assert caught.value.errors()[0]["loc"][0] == next(iter(wrong))
