"""POST /v2/embed in this process."""

import base64
from typing import Any

import numpy as np
import pytest

from tests.support.answers import dialect_of, message_of
from tests.support.service import Service

SOUND: dict[str, Any] = {"texts": ["one", "two", "one"], "input_type": "clustering"}


def test_every_requested_type_is_made_of_the_same_vectors(api: Service) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary"]
    answer = api.http.post("/v2/embed", json={**SOUND, "embedding_types": types}).json()
    assert list(answer["embeddings"]) == types
    floats = np.array(answer["embeddings"]["float"], np.float32)
    assert floats.shape == (3, 16)
    assert np.array_equal(answer["embeddings"]["int8"], np.rint(floats * 127))
    assert np.array_equal(np.subtract(answer["embeddings"]["uint8"], 128), answer["embeddings"]["int8"])
    bits = np.unpackbits(np.array(answer["embeddings"]["ubinary"], np.uint8), axis=1)
    assert np.array_equal(bits, floats > 0)
    assert np.array_equal(np.subtract(answer["embeddings"]["ubinary"], 128), answer["embeddings"]["binary"])


def test_the_vectors_are_those_of_v1_embeddings(api: Service) -> None:
    plain = api.http.post("/v1/embeddings", json={"input": SOUND["texts"]}).json()["data"]
    answer = api.http.post("/v2/embed", json=SOUND)
    assert answer.json()["embeddings"]["float"] == [item["embedding"] for item in plain]
    assert answer.headers["x-semel-cache"].startswith("hits=3")


def test_the_answer_repeats_the_texts_and_counts_the_tokens(api: Service) -> None:
    answer = api.http.post("/v2/embed", json=SOUND).json()
    assert (answer["texts"], answer["response_type"]) == (SOUND["texts"], "embeddings_by_type")
    assert answer["meta"]["billed_units"] == {"input_tokens": 3}


@pytest.mark.parametrize(
    ("input_type", "same_as"),
    [("search_query", "find dog"), ("search_document", "text dog"), ("clustering", "dog"), ("classification", "dog")],
)
def test_the_input_type_chooses_the_prompt(api: Service, input_type: str, same_as: str) -> None:
    body = {"model": "prompted", "texts": ["dog"], "input_type": input_type}
    plain = api.http.post("/v1/embeddings", json={"model": "prompted", "input": same_as}).json()["data"][0]
    assert api.http.post("/v2/embed", json=body).json()["embeddings"]["float"] == [plain["embedding"]]


@pytest.mark.parametrize(("truncate", "status"), [("END", 200), ("NONE", 400), ("START", 200)])
def test_a_long_text_is_cut_or_refused(api: Service, truncate: str, status: int) -> None:
    body = {**SOUND, "texts": ["w " * 50], "truncate": truncate}
    assert api.http.post("/v2/embed", json=body).status_code == status


@pytest.mark.parametrize(
    ("options", "read"),
    [
        ({"truncate": "END"}, range(20)),
        ({"truncate": "START"}, range(30, 50)),
        ({"truncate": "END", "max_tokens": 5}, range(5)),
        ({"truncate": "START", "max_tokens": 5}, range(45, 50)),
    ],
)
def test_a_long_text_has_the_vector_of_the_part_that_is_read(
    api: Service, options: dict[str, Any], read: range
) -> None:
    long, part = (" ".join(f"word{i}" for i in words) for words in (range(50), read))
    answer = api.http.post("/v2/embed", json={**SOUND, "texts": [long], **options})
    assert answer.headers["x-semel-truncated"] == "1"
    alone = api.http.post("/v1/embeddings", json={"input": part}).json()["data"][0]["embedding"]
    assert answer.json()["embeddings"]["float"] == [alone]


def test_base64_holds_the_numbers_of_the_vectors(api: Service) -> None:
    answer = api.http.post("/v2/embed", json={**SOUND, "embedding_types": ["float", "base64"]}).json()["embeddings"]
    rows = [np.frombuffer(base64.b64decode(row), "<f4").tolist() for row in answer["base64"]]
    assert rows == np.array(answer["float"], np.float32).tolist()


def test_inputs_in_pieces_are_joined_by_newlines(api: Service) -> None:
    pieces = [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}]
    body = {"input_type": "clustering", "inputs": [{"content": pieces}]}
    answer = api.http.post("/v2/embed", json=body).json()
    assert answer["texts"] == ["first\nsecond"]
    plain = api.http.post("/v2/embed", json={**SOUND, "texts": ["first\nsecond"]}).json()
    assert answer["embeddings"] == plain["embeddings"]


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"texts": []}, 400, "texts is an empty list"),
        ({"texts": ["a", ""]}, 400, "text 1 is empty"),
        ({"texts": ["poison"]}, 400, "text 0 has no vector"),
        ({"texts": ["x"] * 2049}, 400, "texts has 2049 texts"),
        ({"model": "nope"}, 404, "no model named 'nope'"),
        ({"output_dimension": 7}, 400, "cannot be cut to 7"),
        ({"model": "reranker"}, 400, "cross-encoder"),
        ({"embedding_types": ["float", "float16"]}, 400, "embedding_types.1"),
        ({"max_tokens": 21}, 400, "reads at most 20 tokens, not 21"),
        ({"texts": None}, 400, "send either texts, or inputs"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused(
    api: Service, wrong: dict[str, Any], status: int, message: str
) -> None:
    answer = api.http.post("/v2/embed", json={**SOUND, **wrong})
    assert (answer.status_code, dialect_of(answer)) == (status, "cohere")
    assert message in message_of(answer)
