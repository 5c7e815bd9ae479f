"""Keys are equal only for inputs that give equal vectors."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.cache.keys import check_text, input_key, input_keys, pair_key, text_key, unpack_keys
from semel.errors import InvalidTextError
from semel.values.text import Pair
from tests.support.values import SPEC

CHANGES = {
    "kind": "rerank",
    "weights": "w2",
    "tokenizer": "t2",
    "architecture": "a2",
    "pooling": "cls",
    "normalize": False,
    "prompt": "query: ",
    "max_tokens": 128,
    "truncate_side": "left",
    "precision": "int8",
}


@pytest.mark.parametrize("field", CHANGES)
def test_everything_that_changes_a_vector_changes_the_fingerprint(field: str) -> None:
    changed = replace(SPEC, **{field: CHANGES[field]})
    assert changed.fingerprint != SPEC.fingerprint


def test_no_field_of_the_fingerprint_is_untested() -> None:
    assert set(CHANGES) == set(SPEC.__dataclass_fields__)


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    # A changed value here invalidates every cache in the world: bump `format` and add it to the CHANGELOG.
    assert SPEC.fingerprint.hex() == "d26c3ebbd26d217fc114492a73610b658e6406011a0969759a9a708e26c3eee8"


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_texts_have_different_keys(one: str, other: str) -> None:
    try:
        keys = input_keys(b"f" * 32, [one, other])
    except InvalidTextError:
        return
    assert (keys[0] == keys[1]) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Text", "text"), ("text", "text "), ("text", " text"), ("a\tb", "a b"), ("é", "e\u0301"), ("a\n", "a\r\n")],
)
def test_case_space_and_unicode_form_are_kept(one: str, other: str) -> None:
    assert text_key(b"f" * 32, one) != text_key(b"f" * 32, other)


def test_joining_query_and_document_is_injective() -> None:
    assert pair_key(b"f" * 32, "ab", "c") != pair_key(b"f" * 32, "a", "bc")
    assert pair_key(b"f" * 32, "", "abc") != pair_key(b"f" * 32, "abc", "")


@pytest.mark.parametrize(
    ("text", "why"), [("", "empty"), ("a\ud800b", "lone surrogate"), (3, "int"), (None, "NoneType")]
)
def test_a_text_without_a_key_is_refused_with_its_position(text: str, why: str) -> None:
    with pytest.raises(InvalidTextError, match=rf"text 1 .*{why}") as caught:
        input_keys(b"f" * 32, ["fine", text])
    assert caught.value.index == 1


def test_packed_keys_are_split_again() -> None:
    keys = input_keys(b"f" * 32, ["a", "b", "a"])
    assert unpack_keys(b"".join(keys)) == keys


def test_a_key_is_the_hash_of_fingerprint_and_text() -> None:
    assert text_key(b"f" * 32, "é") == hashlib.sha256(b"f" * 32 + "é".encode()).digest()


def test_the_fingerprint_separates_equal_texts() -> None:
    assert text_key(b"f" * 32, "text") != text_key(b"g" * 32, "text")


def test_the_key_of_a_pair_contains_the_length_of_its_query_in_bytes() -> None:
    joined = b"f" * 32 + (2).to_bytes(8, "little") + "é".encode() + b"doc"
    assert input_key(b"f" * 32, Pair("é", "doc")) == hashlib.sha256(joined).digest()


def test_a_pair_and_a_text_have_different_keys() -> None:
    assert input_key(b"f" * 32, Pair("a", "b")) != input_key(b"f" * 32, "ab")


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        (Pair("", "document"), "text 3 has a query that is empty"),
        (Pair("query", ""), "text 3 has a document that is empty"),
        (Pair("query", "\udfff"), r"text 3 has a document that contains a lone surrogate \(\\udfff at character 0\)"),
        (Pair(None, "document"), "text 3 has a query that is NoneType, not a string"),  # type: ignore[arg-type]
    ],
)
def test_a_pair_without_a_key_is_refused_with_the_bad_side(pair: Pair, why: str) -> None:
    with pytest.raises(InvalidTextError, match=why):
        input_key(b"f" * 32, pair, 3)


def test_a_surrogate_pair_that_is_whole_is_a_text() -> None:
    check_text("🙂", 0)


def test_no_packed_keys_are_no_keys() -> None:
    assert unpack_keys(b"") == []
