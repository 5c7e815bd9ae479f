"""Which step counts as hanging."""

import pytest

from semel.backends import hanging as hanging_module
from semel.backends.hanging import Hang, LoadSteps
from tests.support.fleet import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(hanging_module, "time", made)
    return made


def test_a_step_may_take_ten_times_as_long_as_a_batch(clock: Clock) -> None:
    steps = LoadSteps()
    with steps.step("loading model 'm'"):
        clock.now += 600
        assert steps.hanging(after_s=60) is None
        clock.now += 1
        assert steps.hanging(after_s=60) == Hang("loading model 'm'", 601)
    assert steps.hanging(after_s=0) is None


def test_the_step_that_has_run_for_longest_is_named(clock: Clock) -> None:
    steps = LoadSteps()
    with steps.step("the first"):
        clock.now += 1
        with steps.step("the second"):
            clock.now += 1
            assert steps.hanging(after_s=0) == Hang("the first", 2)


def test_a_step_that_waited_for_another_one_starts_anew(clock: Clock) -> None:
    steps = LoadSteps()
    first = steps.step("the first")
    first.__enter__()
    with steps.step("the second"):
        clock.now += 500
        first.__exit__(None, None, None)
        clock.now += 500
        assert steps.hanging(after_s=60) is None
        clock.now += 101
        assert steps.hanging(after_s=60) == Hang("the second", 601)


def test_a_step_that_fails_has_ended(clock: Clock) -> None:
    steps = LoadSteps()
    with pytest.raises(ZeroDivisionError), steps.step("loading model 'm'"):
        raise ZeroDivisionError
    clock.now += 1000
    assert steps.hanging(after_s=1) is None
