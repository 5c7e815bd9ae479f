"""Texts, pairs, and the reasons why a text cannot be used."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.errors import OverloadedError, TextTooLongError
from semel.values.text import ItemError, Pair, as_input, lone_surrogate, longer_than, size_of

pairs = st.builds(Pair, st.text(), st.text())


@given(st.one_of(st.text(), pairs))
def test_an_input_survives_json(item: str | Pair) -> None:
    back = as_input(json.loads(json.dumps(item)))
    assert back == item
    assert type(back) is type(item)


def test_the_size_of_a_pair_counts_both_texts() -> None:
    assert size_of("four") == 4
    assert size_of(Pair("four", "and six")) == 11


def test_the_size_counts_characters_and_not_bytes() -> None:
    assert size_of("ä€😀") == 3


def test_a_lone_surrogate_is_described_with_its_position() -> None:
    assert lone_surrogate("ab\ud83dcd") == "a lone surrogate (\\ud83d at character 2)"


@pytest.mark.parametrize("text", ["", "plain", "😀", "a\0b"])
def test_whole_texts_have_none(text: str) -> None:
    assert lone_surrogate(text) is None


@given(st.text(st.characters()))  # surrogates included
def test_a_text_without_a_description_can_be_encoded(text: str) -> None:
    if lone_surrogate(text) is None:
        assert text.encode().decode() == text


def test_the_reason_for_a_text_that_is_too_long_names_the_setting() -> None:
    assert longer_than(100) == "is longer than 100 characters (SEMEL_MAX_TEXT_BYTES)"


def test_the_error_of_an_item_has_the_code_and_the_message_of_the_exception() -> None:
    error = ItemError.of(OverloadedError("too much", retry_after_s=1.0))
    assert error == ItemError("rate_limit_exceeded", "too much")
    assert ItemError.of(TextTooLongError()).code == "text_too_long"
