"""A value is read again when it is too old, and only then."""

from itertools import count

import pytest

from semel import kept
from semel.kept import Kept


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(kept.time, "monotonic", lambda: now[0])
    return now


def test_a_young_value_is_not_read_again(clock: list[float]) -> None:
    value, numbers = Kept[int](5.0), count()
    assert value.get(lambda: next(numbers)) == 0
    clock[0] += 4.9
    assert value.get(lambda: next(numbers)) == 0


def test_an_old_value_is_read_again(clock: list[float]) -> None:
    value, numbers = Kept[int](5.0), count()
    value.get(lambda: next(numbers))
    clock[0] += 5.0
    assert value.fresh is None
    assert value.get(lambda: next(numbers)) == 1


def test_a_value_that_another_call_provides_is_kept_like_one_that_was_read(clock: list[float]) -> None:
    value = Kept[str](5.0)
    assert value.put("provided") == "provided"
    clock[0] += 4.0
    assert value.get(lambda: pytest.fail("it was read although a fresh value is there")) == "provided"


def test_one_value_may_be_kept_longer_than_the_others(clock: list[float]) -> None:
    value = Kept[str](5.0)
    value.put("expensive", seconds=60.0)
    clock[0] += 59.0
    assert value.fresh == "expensive"
    value.put("cheap")
    clock[0] += 6.0
    assert value.fresh is None


def test_a_forgotten_value_is_read_again(clock: list[float]) -> None:
    value = Kept[str](5.0)
    value.put("old")
    value.forget()
    assert value.get(lambda: "new") == "new"


def test_an_error_is_not_kept(clock: list[float]) -> None:
    value = Kept[str](5.0)

    def fail() -> str:
        raise ConnectionError("no answer")

    with pytest.raises(ConnectionError):
        value.get(fail)
    assert value.get(lambda: "recovered") == "recovered"


def test_a_value_that_is_false_is_a_value(clock: list[float]) -> None:
    value = Kept[int](5.0)
    value.put(0)
    assert value.get(lambda: pytest.fail("0 was taken for no value")) == 0
