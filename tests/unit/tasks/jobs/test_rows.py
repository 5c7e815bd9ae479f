"""What is packed into rows comes back as it was."""

import datetime
import json
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from semel.cache.keys import KEY_BYTES
from semel.tasks.jobs.rows import (
    CODE_OUTCOMES,
    NO_KEY,
    OUTCOME_CODES,
    ChunkResult,
    ChunkState,
    ChunkWork,
    NewChunk,
    chunk_row,
    done_values,
    kept_outcomes,
    outcomes_of,
    pack,
    pack_errors,
    unpack_errors,
    unpack_extras,
    unpack_texts,
)
from semel.values.text import Extra, Input, ItemError, Lane, Outcome, Pair

EMPTY = ItemError("invalid_text", "is empty")


class Row:
    """A row of `chunks` with the values that a statement would write."""

    def __init__(self, values: dict[str, Any]) -> None:
        vars(self).update({"outcomes": None, **values})


def work(**changed: Any) -> ChunkWork:
    """A leased chunk of three texts."""
    defaults: dict[str, Any] = {
        "job_id": "job_1", "position": 0, "owner": "w", "attempts": 1, "tries": 1, "first_index": 0,
        "keys": [b"k" * 32] * 3, "errors": {}, "payload": pack(["a", "b", "c"]), "model": "m", "prompt_name": "",
        "fingerprint": b"f" * 32,
        "lane": Lane.BULK, "truncate": True,
    }  # fmt: skip
    return ChunkWork(**{**defaults, **changed})


@given(st.lists(st.one_of(st.text(), st.builds(Pair, st.text(), st.text()))))
def test_texts_and_pairs_are_unpacked_in_order(items: list[Input]) -> None:
    unpacked = unpack_texts(pack(items))
    assert unpacked == items
    assert [type(item) for item in unpacked] == [type(item) for item in items]


def test_the_payload_is_a_compressed_json_list() -> None:
    assert json.loads(zstandard.decompress(pack(["é", Pair("q", "d")]))) == ["é", ["q", "d"]]
    assert len(pack(["the same words " * 100])) < 100


def test_extra_fields_are_unpacked_for_each_text() -> None:
    extras = [Extra(7, {"title": "é", "tags": [1, None]}), None, Extra(None, {"a": 0.5})]
    assert unpack_extras(pack(extras), 3) == extras
    assert unpack_extras(None, 2) == [None, None]


def test_values_that_json_lacks_are_packed_as_text() -> None:
    (extra,) = unpack_extras(pack([Extra(datetime.date(2024, 2, 29), {"at": datetime.time(12, 30)})]), 1)
    assert extra == Extra("2024-02-29", {"at": "12:30:00"})


def test_a_lone_surrogate_in_an_extra_field_survives() -> None:
    extras = [Extra("\ud800", {"é": "\udfff"})]
    assert unpack_extras(pack(extras), 1) == extras


def test_errors_are_unpacked_by_position() -> None:
    errors = {10: EMPTY, 2: ItemError("backend_error", 'a "quoted" reason')}
    assert unpack_errors(pack_errors(errors)) == errors
    assert pack_errors({}) == "{}", "queries look for rows without errors by this text"


def test_every_outcome_has_its_own_byte() -> None:
    assert set(OUTCOME_CODES) == set(Outcome)
    assert {code: outcome for outcome, code in OUTCOME_CODES.items()} == CODE_OUTCOMES
    assert len(CODE_OUTCOMES) == len(Outcome)


def test_a_new_chunk_is_pending_and_has_no_outcomes() -> None:
    row = Row(chunk_row("job_1", 3, NewChunk(6, [b"a" * 32, NO_KEY], ["a", ""], {1: EMPTY}, [None, Extra(1, {})])))
    assert (row.job_id, row.position, row.state, row.attempts) == ("job_1", 3, ChunkState.PENDING, 0)  # type: ignore[attr-defined]
    assert (row.first_index, row.texts) == (6, 2)  # type: ignore[attr-defined]
    assert row.packed_keys == b"a" * 32 + bytes(KEY_BYTES)  # type: ignore[attr-defined]
    assert unpack_errors(row.errors_json) == {1: EMPTY}  # type: ignore[attr-defined]
    assert unpack_extras(row.extras, 2) == [None, Extra(1, {})]  # type: ignore[attr-defined]
    assert outcomes_of(row) == []


def test_a_chunk_without_extra_fields_stores_none() -> None:
    assert chunk_row("job_1", 0, NewChunk(0, [b"a" * 32], ["a"], {}, [None]))["extras"] is None
    assert chunk_row("job_1", 0, NewChunk(0, [b"a" * 32], ["a"]))["extras"] is None


def test_a_finished_chunk_has_its_outcomes_and_no_owner() -> None:
    outcomes = [Outcome.HIT, Outcome.COMPUTED, Outcome.COALESCED, Outcome.FAILED]
    values = done_values(outcomes, {3: EMPTY})
    assert (values["state"], values["lease_owner"]) == (ChunkState.DONE, None)
    assert outcomes_of(Row(values)) == outcomes
    assert unpack_errors(values["errors_json"]) == {3: EMPTY}


@pytest.mark.parametrize(
    ("before", "errors", "kept"),
    [
        ([], {}, set()),
        ([Outcome.HIT, Outcome.COMPUTED, Outcome.COALESCED], {}, {0, 1, 2}),
        ([Outcome.COMPUTED, Outcome.FAILED, Outcome.FAILED], {2: EMPTY}, {0, 2}),
    ],
    ids=["first run", "nothing failed", "one error is permanent"],
)
def test_a_retry_keeps_what_did_not_fail_and_what_would_fail_again(
    before: list[Outcome], errors: dict[int, ItemError], kept: set[int]
) -> None:
    assert kept_outcomes(before, errors) == kept
    assert work(before=before, errors=errors).kept == kept


def test_a_leased_chunk_unpacks_its_texts() -> None:
    assert work().texts() == ["a", "b", "c"]


def test_a_slice_of_a_result_has_only_its_own_texts() -> None:
    whole = ChunkResult(0, [b"k" * 32] * 3, [Outcome.HIT] * 3, {}, pack(["a", "b", "c"]), [None] * 3)
    assert whole.texts() == ["a", "b", "c"]
    assert replace(whole, first_index=1, keys=whole.keys[1:2], skipped=1).texts() == ["b"]
