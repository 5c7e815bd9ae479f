"""Texts as lines: nothing is lost, whatever its type, and memory holds one block."""

import datetime
import decimal
import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semel.client.upload import as_lines, ignore


def lines(texts: list[object], text_field: str = "text") -> list[object]:
    content = b"".join(as_lines(texts, ignore, text_field))  # type: ignore[arg-type]
    return [json.loads(line) for line in content.split(b"\n") if line]


@given(st.lists(st.text()))
def test_every_text_is_one_line_whatever_is_in_it(texts: list[str]) -> None:
    assert lines(list(texts)) == [{"text": text} for text in texts]


def test_a_lone_surrogate_reaches_the_server_which_refuses_it_by_position() -> None:
    assert lines(["a\ud800"]) == [{"text": "a\ud800"}]


def test_rows_keep_their_fields_and_their_own_text_field() -> None:
    rows = [{"body": "one", "id": 1}, {"query": "q", "document": "d"}]
    assert lines([*rows, "two"], "body") == [*rows, {"body": "two"}]


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (decimal.Decimal("1.50"), "1.50"),
    ],
)
def test_values_of_tables_are_sent_as_json_has_them(value: object, sent: object) -> None:
    assert lines([{"text": "x", "value": value}]) == [{"text": "x", "value": sent}]


def test_an_array_is_sent_as_a_list() -> None:
    assert lines([{"text": "x", "value": np.array([[1, 2], [3, 4]])}]) == [{"text": "x", "value": [[1, 2], [3, 4]]}]


def test_the_callers_row_is_left_alone() -> None:
    row = {"text": "x"}
    lines([row])
    assert row == {"text": "x"}


def test_lines_are_sent_in_blocks_and_the_progress_after_each() -> None:
    sent: list[int] = []
    blocks = list(as_lines(("x" * 100_000 for _ in range(7)), sent.append))
    assert sent == [3, 6, 7]
    assert [len(block.splitlines()) for block in blocks] == [3, 3, 1]


def test_a_block_is_sent_before_the_next_text_is_taken() -> None:
    taken: list[int] = []

    def texts() -> Iterator[str]:
        for at in range(10):
            taken.append(at)
            yield "x" * (300 << 10)

    blocks = as_lines(texts(), ignore)
    next(blocks)
    assert taken == [0]


def test_no_texts_are_an_empty_body() -> None:
    sent: list[int] = []
    assert b"".join(as_lines([], sent.append)) == b""
    assert sent == [0]
