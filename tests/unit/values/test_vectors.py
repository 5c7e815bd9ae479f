"""Arrays of vectors: which rows are sound, how alike they are, and the sums of computations."""

import numpy as np
import pytest

from semel.errors import TextTooLongError
from semel.values.text import ItemError, Outcome
from semel.values.vectors import Computed, Embedded, Found, cosines, refused_truncation, sound_rows, unit_rows
from tests.support.values import vectors


def found(*present: bool) -> Found:
    n = len(present)
    return Found(np.array(present, np.bool_), np.zeros(n, np.int32), np.zeros(n, np.bool_))


def test_all_present_needs_every_row() -> None:
    assert found(True, True).all_present
    assert not found(True, False).all_present


def test_nothing_asked_for_is_all_present() -> None:
    assert found().all_present


def test_rows_with_nan_infinity_or_only_zeros_are_not_sound() -> None:
    rows = np.array([[1, 0], [np.nan, 1], [1, np.inf], [0, 0]], np.float32)
    assert sound_rows(rows).tolist() == [True, False, False, False]


def test_a_score_of_zero_is_sound() -> None:
    assert sound_rows(np.array([[0.0], [-2.5], [np.nan]], np.float32)).tolist() == [True, True, False]


def test_unit_rows_have_length_one_and_keep_their_direction() -> None:
    rows = vectors(5) * 7
    units = unit_rows(rows)
    assert units.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(units * np.linalg.norm(rows, axis=1, keepdims=True), rows, atol=1e-5)


def test_the_cosine_is_one_for_the_same_direction_and_minus_one_for_the_opposite() -> None:
    one = np.array([3, 4], np.float32)
    others = np.array([[6, 8], [-3, -4], [4, -3]], np.float32)
    np.testing.assert_allclose(cosines(one, others), [1, -1, 0], atol=1e-6)


def test_a_cosine_never_leaves_its_range_by_rounding() -> None:
    rows = vectors(200, 37)
    for row in rows[:20]:
        assert np.abs(cosines(row, rows)).max() <= 1


def test_equal_rows_have_equal_cosines_at_every_position() -> None:
    one, other = vectors(2, 384)
    rows = np.tile(other, (37, 1))
    assert len(set(cosines(one, rows).tolist())) == 1
    assert cosines(one, rows)[0] == cosines(one, rows[:1])[0]


def test_a_merged_computation_has_the_outcomes_of_both() -> None:
    one, other = Computed(inference_s=0.5), Computed(inference_s=0.25)
    one.add(b"a", Outcome.COMPUTED, tokens=3, truncated=False)
    other.add(b"b", Outcome.COALESCED, tokens=9, truncated=True)
    other.fail(b"c", ItemError("backend_error", "broken"))
    one.merge(other)
    assert one.outcomes == {b"a": Outcome.COMPUTED, b"b": Outcome.COALESCED, b"c": Outcome.FAILED}
    assert (one.tokens, one.truncated) == ({b"a": 3, b"b": 9}, {b"a": False, b"b": True})
    assert one.errors == {b"c": ItemError("backend_error", "broken")}
    assert one.inference_s == pytest.approx(0.75)


def test_the_time_is_unknown_after_a_computation_that_was_not_measured() -> None:
    done = Computed(inference_s=0.5)
    done.merge(Computed(inference_s=None))
    assert done.inference_s is None


def test_outcomes_are_counted() -> None:
    outcomes = [Outcome.HIT, Outcome.FAILED, Outcome.HIT]
    embedded = Embedded(vectors(3), outcomes, {}, np.zeros(3, np.int32), np.zeros(3, np.bool_))
    assert [embedded.count(outcome) for outcome in Outcome] == [2, 0, 0, 1]


def test_every_text_that_would_be_cut_is_refused_at_its_position() -> None:
    errors = refused_truncation([False, True, False, True])
    assert errors == dict.fromkeys((1, 3), ItemError.of(TextTooLongError()))
