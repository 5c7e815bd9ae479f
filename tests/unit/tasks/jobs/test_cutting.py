"""Rows that are cut into chunks: where a chunk ends, and what a bad row leaves in its place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.cache.keys import input_keys
from semel.errors import BadInputError
from semel.tasks.jobs.cutting import ChunkCutter, cut_places
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.values.model import Space
from semel.values.text import Extra, Input, Pair
from tests.support.values import space

EMBED, RERANK = space(), space(1, kind="cross-encoder")


def cutter(to: Space = EMBED, *, texts: int = 3, size: int = 1000, longest: int = 100, **options: Any) -> ChunkCutter:
    return ChunkCutter(to, key_base=to.key_base, chunk_texts=texts, chunk_bytes=size, max_text_bytes=longest, **options)


def cut(made: ChunkCutter, *items: Input) -> list[NewChunk]:
    for item in items:
        made.add(item)
    return made.take_rest()


# Where a chunk ends


def test_a_chunk_is_full_at_its_number_of_texts() -> None:
    chunks = cut(cutter(texts=3), *"abcdefg")
    assert [chunk.texts for chunk in chunks] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert [chunk.first_index for chunk in chunks] == [0, 3, 6]


def test_a_chunk_is_full_at_its_number_of_characters() -> None:
    chunks = cut(cutter(texts=100, size=5), "aaa", "bb", "c", "dddddddd", "e")
    assert [chunk.texts for chunk in chunks] == [["aaa", "bb"], ["c", "dddddddd"], ["e"]]


def test_both_sides_of_a_pair_count() -> None:
    chunks = cut(cutter(RERANK, texts=100, size=6), Pair("abc", "def"), Pair("a", "b"))
    assert [chunk.texts for chunk in chunks] == [[Pair("abc", "def")], [Pair("a", "b")]]


def test_the_other_fields_of_a_row_fill_a_chunk_too() -> None:
    made = cutter(texts=100, size=100)
    for i in range(4):
        made.add_row({"text": "a", "other": "x" * 60}, f"row {i}")
    assert made.has(2)
    assert [len(chunk.texts) for chunk in made.take()] == [2, 2]


def test_chunks_with_large_fields_are_taken_sooner() -> None:
    made = cutter(texts=100, size=100, longest=1000)
    made.add_row({"text": "a", "other": "x" * 900}, "row 1")
    assert made.has(8)


def test_other_fields_count_as_no_work() -> None:
    made = cutter(texts=64, size=1000, longest=2000)
    made.add_row({"text": "a", "other": ["x" * 500, "y" * 600]}, "row 1")
    assert made.take()[0].weight == 1 / 64


def test_a_row_with_other_fields_above_the_limit_keeps_its_place_and_fails() -> None:
    made = cutter(texts=100, size=10_000, longest=500)
    made.add_row({"text": "a", "other": "x" * 501}, "row 1")
    made.add_row({"text": "b", "other": "x" * 400}, "row 2")
    (chunk,) = made.take_rest()
    assert chunk.texts == ["", "b"]
    assert list(chunk.errors) == [0]
    assert "other fields" in chunk.errors[0].message


def test_full_chunks_are_taken_while_the_last_one_waits_for_more() -> None:
    made = cutter(texts=2)
    for text in "abcde":
        made.add(text)
    assert made.has(2)
    assert not made.has(3)
    assert [chunk.texts for chunk in made.take()] == [["a", "b"], ["c", "d"]]
    assert made.take() == []
    assert [(chunk.first_index, chunk.texts) for chunk in made.take_rest()] == [(4, ["e"])]
    assert made.take_rest() == []


def test_a_cutter_is_empty_until_the_first_row_even_if_that_is_bad() -> None:
    made = cutter()
    assert made.is_empty
    assert made.take_rest() == []
    made.add_bad("cannot be read")
    assert not made.is_empty


# Keys and errors


def test_every_text_gets_its_key() -> None:
    (chunk,) = cut(cutter(), "a", "b", "a")
    assert chunk.keys == input_keys(EMBED.fingerprint, ["a", "b", "a"])
    assert chunk.errors == {}


def test_the_fingerprint_of_the_beginning_is_used_to_the_end() -> None:
    began_with = space(weights="before")
    made = ChunkCutter(EMBED, key_base=began_with.key_base, chunk_texts=9, chunk_bytes=99, max_text_bytes=99)
    assert cut(made, "a")[0].keys == input_keys(began_with.fingerprint, ["a"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [("", "is empty"), ("\ud800", "lone surrogate"), ("x" * 101, r"is longer than 100 characters")],
)
def test_a_text_without_a_vector_keeps_its_place_with_its_error(bad: str, message: str) -> None:
    made = cutter(texts=2)
    first, second = cut(made, "a", "b", "c", bad)
    assert first.errors == {}
    assert second.keys == [*input_keys(EMBED.fingerprint, ["c"]), NO_KEY]
    assert second.texts == ["c", ""]
    assert list(second.errors) == [1], "a position in the chunk"
    assert second.errors[1].code == "invalid_text"
    assert "text 3 " in second.errors[1].message, "a position in the job"
    assert message in second.errors[1].message


def test_the_longest_text_that_is_allowed_is_no_error() -> None:
    (chunk,) = cut(cutter(longest=5), "xxxxx")
    assert chunk.errors == {}


def test_a_row_that_cannot_be_read_keeps_its_place() -> None:
    made = cutter()
    made.add("a")
    made.add_bad("line 2 is no JSON", Extra(7, {}))
    (chunk,) = made.take_rest()
    assert chunk.keys[1] == NO_KEY
    assert (chunk.errors[1].code, chunk.errors[1].message) == ("invalid_text", "line 2 is no JSON")
    assert list(chunk.extras) == [None, Extra(7, {})]


@pytest.mark.parametrize(("to", "wrong"), [(EMBED, Pair("q", "d")), (RERANK, "text")])
def test_an_input_of_the_wrong_kind_is_refused(to: Space, wrong: Input) -> None:
    made = cutter(to)
    with pytest.raises(BadInputError, match="model 'm'"):
        made.add(wrong)
    assert made.is_empty


# Rows with fields


def test_the_other_fields_of_a_row_stay_with_it() -> None:
    made = cutter()
    made.add_row({"text": "a", "id": 7, "title": "T"}, "line 1")
    made.add_row({"text": "b"}, "line 2")
    made.add_row({"text": "c", "id": 0}, "line 3")
    (chunk,) = made.take_rest()
    assert chunk.texts == ["a", "b", "c"]
    assert list(chunk.extras) == [Extra(7, {"title": "T"}), None, Extra(0, {})]


def test_the_row_of_the_caller_is_not_changed() -> None:
    row = {"text": "a", "id": 7}
    cutter().add_row(row, "line 1")
    assert row == {"text": "a", "id": 7}


def test_another_field_may_hold_the_text() -> None:
    made = cutter(text_field="body")
    made.add_row({"body": "a", "text": "carried along"}, "line 1")
    (chunk,) = made.take_rest()
    assert chunk.texts == ["a"]
    assert list(chunk.extras) == [Extra(None, {"text": "carried along"})]


def test_a_row_of_a_cross_encoder_has_a_query_and_a_document() -> None:
    made = cutter(RERANK)
    assert made.fields == ("query", "document")
    made.add_row({"query": "q", "document": "d", "id": 1}, "line 1")
    (chunk,) = made.take_rest()
    assert chunk.texts == [Pair("q", "d")]
    assert list(chunk.extras) == [Extra(1, {})]


WITHOUT_TEXT = pytest.mark.parametrize(
    ("to", "row", "message"),
    [
        (EMBED, {"txt": "a"}, 'line 4: "text" is missing; each row must be {"text": "…"}'),
        (EMBED, {"text": None}, 'line 4: "text" is null; each row must be {"text": "…"}'),
        (EMBED, {"text": 5}, 'line 4: "text" is int, not a string; each row must be {"text": "…"}'),
        (EMBED, {"text": ["a"]}, 'line 4: "text" is list, not a string'),
        (EMBED, "only a string", 'line 4: "text" is missing'),
        (EMBED, None, 'line 4: "text" is missing'),
        (RERANK, {"text": "a"}, 'line 4: "query" is missing; each row must be {"query": "…", "document": "…"}'),
        (RERANK, {"query": "q", "document": None}, 'line 4: "document" is null'),
    ],
)


@WITHOUT_TEXT
def test_a_row_without_its_text_keeps_its_place_with_its_error(to: Space, row: object, message: str) -> None:
    made = cutter(to)
    made.add_row(dict.fromkeys(made.fields, "fine"), "line 3")
    made.add_row(row, "line 4")
    (chunk,) = made.take_rest()
    assert chunk.keys[1] == NO_KEY
    assert list(chunk.errors) == [1]
    assert chunk.errors[1].code == "invalid_text"
    assert message in chunk.errors[1].message


@WITHOUT_TEXT
def test_a_row_without_its_text_is_refused_when_all_must_be_good(to: Space, row: object, message: str) -> None:
    with pytest.raises(BadInputError) as refused:
        cutter(to, strict=True).add_row(row, "line 4")
    assert message in str(refused.value)
    assert str(refused.value).endswith(" (strict: nothing was accepted)")


@pytest.mark.parametrize("bad", ["", "\ud800", "x" * 101])
def test_a_text_without_a_vector_is_refused_when_all_must_be_good(bad: str) -> None:
    with pytest.raises(BadInputError, match=r"text 0 .* \(strict: nothing was accepted\)"):
        cutter(strict=True).add(bad)


def test_a_row_that_cannot_be_read_is_refused_when_all_must_be_good() -> None:
    with pytest.raises(BadInputError, match=r"row 1: not UTF-8 \(strict: nothing was accepted\)"):
        cutter(strict=True).add_bad("row 1: not UTF-8")


def test_a_row_without_its_text_keeps_its_id_and_its_other_fields() -> None:
    made = cutter()
    made.add_row({"id": 7, "text": None, "page": 3}, "line 1")
    (chunk,) = made.take_rest()
    assert list(chunk.extras) == [Extra(7, {"page": 3})]


def test_other_fields_above_the_limit_are_not_kept_for_a_row_without_its_text() -> None:
    made = cutter(longest=500)
    made.add_row({"id": 7, "text": None, "other": "x" * 501}, "line 1")
    (chunk,) = made.take_rest()
    assert list(chunk.extras) == [None]
    assert '"text" is null' in chunk.errors[0].message


def test_rows_of_which_none_has_a_text_are_unusable_for_the_reason_of_the_first() -> None:
    made = cutter()
    assert made.why_unusable is None
    made.add_row({"body": "a"}, "line 1")
    made.add_unusable("line 2: not JSON")
    assert made.why_unusable == 'line 1: "text" is missing; each row must be {"text": "…"}'
    made.add_row({"text": ""}, "line 3")
    assert made.why_unusable is None, "an empty text is a row of this job"


def test_a_row_that_cannot_be_read_makes_no_submission_unusable() -> None:
    made = cutter()
    made.add_bad("row 1: not UTF-8")
    assert made.why_unusable is None


# Lists


@given(st.lists(st.text(max_size=9), max_size=40), st.integers(1, 7), st.integers(1, 20))
def test_parts_cover_a_list_in_order_within_their_limits(items: list[str], most_texts: int, most_size: int) -> None:
    parts = [items[part] for part in cut_places(items, most_texts=most_texts, most_size=most_size)]
    assert [item for part in parts for item in part] == items
    for part in parts:
        assert 1 <= len(part) <= most_texts
        assert len(part) == 1 or sum(map(len, part)) <= most_size


def test_a_list_is_not_cut_more_often_than_needed() -> None:
    assert list(cut_places(["aa", "bb", "cc"], most_texts=9, most_size=4)) == [slice(0, 2), slice(2, 3)]
    assert list(cut_places(["aa", "bb", "cc"], most_texts=9, most_size=6)) == [slice(0, 3)]


def test_a_text_above_the_limit_is_a_part_of_its_own() -> None:
    assert list(cut_places(["a", "too long", "b"], most_texts=9, most_size=3)) == [
        slice(0, 1),
        slice(1, 2),
        slice(2, 3),
    ]
