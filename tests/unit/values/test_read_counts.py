"""How much of some texts a model read."""

import pytest

from semel.values.read_counts import ReadCounts


def test_texts_that_were_read_whole_leave_nothing_unread() -> None:
    assert ReadCounts.of([100, 50], [20, 10], [False, False]) == ReadCounts(0, 30, 0)


def test_the_rest_of_a_text_is_counted_at_the_rate_of_those_that_were_read_whole() -> None:
    chinese = [10_000] * 10, [10_000] * 10, [False] * 10
    counts = ReadCounts.of([*chinese[0], 1000], [*chinese[1], 256], [*chinese[2], True])
    assert counts.unread == pytest.approx(1000 - 256, abs=10)
    few = ReadCounts.of([13, 1000], [6, 100], [False, True])
    assert few.unread == pytest.approx(1000 / 4 - 100, abs=5), "one short text says little"


def test_without_a_whole_text_a_token_has_four_characters() -> None:
    assert ReadCounts.of([400, 800], [60, 60], [True, True]) == ReadCounts(2, 120, 40 + 140)


def test_a_text_that_was_cut_has_at_least_one_token_unread() -> None:
    assert ReadCounts.of([10], [60], [True]).unread == 1


def test_bad_texts_without_tokens_are_left_out() -> None:
    assert ReadCounts.of([0, 100, 400], [0, 25, 50], [False, False, True]) == ReadCounts(1, 75, 50)


def test_counts_are_added_and_have_a_share() -> None:
    both = ReadCounts(1, 30, 10) + ReadCounts(2, 20, 40)
    assert both == ReadCounts(3, 50, 50)
    assert both.unread_share == pytest.approx(0.5)
    assert ReadCounts().unread_share == 0.0
