"""Work in steps, and who takes them."""

from collections.abc import Mapping

import pytest

from semel.errors import BackendError, SemelError, UnavailableError
from semel.steps import Missing, Steps, finish, resume
from semel.values.model import Space
from semel.values.text import Input, Lane, Outcome
from semel.values.vectors import Computed
from tests.support.values import space

SPACE = space()


def stop(*texts: str, lane: Lane = Lane.INTERACTIVE) -> Missing:
    return Missing(SPACE, {text.encode(): text for text in texts}, lane)


class Upper:
    """A sender that computes at once, or fails.

    Attributes:
        calls: the texts and the lane of every call.
        errors: raised by the next calls, one by one.
    """

    def __init__(self, *errors: Exception) -> None:
        self.calls: list[tuple[list[Input], Lane]] = []
        self.errors = list(errors)

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane) -> Computed:
        self.calls.append((list(missing.values()), lane))
        if self.errors:
            raise self.errors.pop(0)
        return Computed(dict.fromkeys(missing, Outcome.COMPUTED))


def two_stops() -> Steps[list[bytes]]:
    first = yield stop("a", "b")
    second = yield stop("c", lane=Lane.BULK)
    return [*first.outcomes, *second.outcomes]


def inner(name: str) -> Steps[str]:
    done = yield stop(name)
    return f"{name}: {len(done.outcomes)}"


def outer() -> Steps[str]:
    return f"{(yield from inner('one'))}, {(yield from inner('two'))}"


def patient() -> Steps[str]:
    """Tries again once, and has an answer for an error too."""
    try:
        yield stop("a")
    except UnavailableError:
        try:
            yield stop("a again")
        except BackendError as error:
            return f"failed: {error}"
    return "computed"


def no_stop() -> Steps[int]:
    return 3
    yield stop()


def test_the_steps_go_on_with_the_outcomes_of_what_was_missing() -> None:
    sender = Upper()
    assert finish(two_stops(), sender) == [b"a", b"b", b"c"]
    assert sender.calls == [(["a", "b"], Lane.INTERACTIVE), (["c"], Lane.BULK)]


def test_steps_that_need_nothing_computed_ask_for_nothing() -> None:
    sender = Upper()
    assert finish(no_stop(), sender) == 3
    assert sender.calls == []


def test_steps_may_need_other_steps() -> None:
    assert finish(outer(), Upper()) == "one: 1, two: 1"


def test_the_error_of_a_computation_reaches_the_steps_which_may_go_on() -> None:
    sender = Upper(UnavailableError("no worker"))
    assert finish(patient(), sender) == "computed"
    assert [texts for texts, _ in sender.calls] == [["a"], ["a again"]]


def test_steps_may_end_with_a_result_after_an_error() -> None:
    assert finish(patient(), Upper(UnavailableError("no worker"), BackendError("lost"))) == "failed: lost"


def test_an_error_that_the_steps_do_not_handle_is_raised() -> None:
    with pytest.raises(BackendError, match="lost"):
        finish(two_stops(), Upper(BackendError("lost")))


def test_an_unforeseen_error_of_the_sender_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        finish(patient(), Upper(ZeroDivisionError()))


def test_resume_returns_the_next_stop() -> None:
    steps = two_stops()
    assert next(steps) == stop("a", "b")
    assert resume(steps, Computed) == stop("c", lane=Lane.BULK)


def test_resume_ends_with_the_result_as_a_generator_does() -> None:
    steps = inner("one")
    next(steps)
    with pytest.raises(StopIteration) as end:
        resume(steps, Computed)
    assert end.value.value == "one: 0"


def test_resume_throws_the_error_of_the_outcomes_into_the_steps() -> None:
    steps, error = patient(), UnavailableError("no worker")

    def outcomes() -> Computed:
        raise error

    next(steps)
    assert resume(steps, outcomes) == stop("a again")


def test_resume_raises_what_the_steps_do_not_handle() -> None:
    steps, error = inner("one"), SemelError("unknown")

    def outcomes() -> Computed:
        raise error

    next(steps)
    with pytest.raises(SemelError) as raised:
        resume(steps, outcomes)
    assert raised.value is error
