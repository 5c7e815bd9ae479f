"""JSON for answers: exact numbers, and any text that JSON can carry."""

import json

import numpy as np
import pytest

from semel.api.edge.as_json import as_json


def test_float32_numbers_keep_their_bits_with_few_digits() -> None:
    numbers = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    text = as_json({"embedding": numbers})
    assert np.array_equal(np.array(json.loads(text)["embedding"], np.float32), numbers)
    assert len(text) < 0.7 * len(json.dumps(numbers.tolist()))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.float32])
def test_every_number_type_of_the_dialects_is_written(dtype: type[np.generic]) -> None:
    assert json.loads(as_json([np.array([0, 1, 100], dtype)])) == [[0, 1, 100]]


def test_texts_in_every_script_are_utf_8() -> None:
    assert as_json({"text": "Grüße 漢字 🙂"}) == '{"text":"Grüße 漢字 🙂"}'.encode()


def test_a_lone_surrogate_is_escaped_and_the_numbers_next_to_it_stay() -> None:
    numbers = np.array([0.1, -2.5], np.float32)
    read = json.loads(as_json({"id": "a\ud800", "embedding": numbers}))
    assert read["id"] == "a\ud800"
    assert np.array_equal(np.array(read["embedding"], np.float32), numbers)


def test_an_id_that_is_nested_deeper_than_orjson_goes_is_written() -> None:
    deep = json.loads("[" * 300 + "]" * 300)
    assert json.loads(as_json({"id": deep})) == {"id": deep}


def test_an_integer_above_64_bits_is_written() -> None:
    assert json.loads(as_json({"id": 2**70})) == {"id": 2**70}


def test_an_answer_is_one_line_for_every_reader() -> None:
    value = {"a": "one\u2028two\u2029three\x85four\nfive\rsix"}
    encoded = as_json(value)
    assert len(encoded.decode().splitlines()) == 1
    assert json.loads(encoded) == value
