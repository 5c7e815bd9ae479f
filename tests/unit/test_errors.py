"""Errors travel between processes as a code and a message, and arrive as the same class."""

import pytest

from semel import error_codes, errors
from semel.error_codes import is_fault_of_the_text, revive
from semel.errors import (
    BackendError,
    BadInputError,
    DeviceMemoryError,
    ForeignPageError,
    InvalidTextError,
    NotFoundError,
    OverloadedError,
    SemelError,
    StorageFullError,
    TextTooLongError,
    TimedOutError,
    UnavailableError,
    UnknownModelError,
)

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SemelError)]


def test_no_two_classes_share_a_code() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_is_revived_as_its_own_class_with_its_message(kind: type[SemelError]) -> None:
    error = revive(kind.code, "what happened, where, and what to do")
    assert type(error) is kind
    assert str(error) == "what happened, where, and what to do"


@pytest.mark.parametrize(
    "raised",
    [
        InvalidTextError(3, "is empty"),
        TextTooLongError(),
        UnknownModelError("x", ["b", "a"]),
        NotFoundError("job", "job_1"),
        OverloadedError("too much", retry_after_s=2.5),
        StorageFullError("sqlite:///x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_revived_error_has_every_attribute_of_the_raised_one(raised: SemelError) -> None:
    again = revive(raised.code, str(raised), retry_after_s=2.5)
    assert vars(again) == vars(raised)
    assert str(again) == str(raised)


def test_an_unknown_code_becomes_the_root_of_the_tree() -> None:
    error = revive("invented_later", "something new")
    assert type(error) is SemelError
    assert (error.status, str(error)) == (500, "something new")


def test_a_subclass_without_a_code_of_its_own_does_not_replace_its_base() -> None:
    class SpecialError(BackendError):
        """Inherits its code."""

    error_codes._kinds.cache_clear()  # so that it is found
    assert SpecialError.code == BackendError.code
    assert type(revive(BackendError.code, "broken")) is BackendError


def test_an_overload_without_a_time_asks_for_one_second() -> None:
    error = revive("rate_limit_exceeded", "too much")
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 1.0


def test_an_unavailable_service_keeps_the_time_that_the_server_named_or_none() -> None:
    for code in (UnavailableError.code, TimedOutError.code):
        with_time, without = revive(code, "starting", retry_after_s=7.0), revive(code, "starting")
        assert isinstance(with_time, UnavailableError)
        assert isinstance(without, UnavailableError)
        assert (with_time.retry_after_s, without.retry_after_s) == (7.0, None)


def test_a_revived_text_error_without_a_position_has_the_whole_message_as_its_reason() -> None:
    error = revive("invalid_text", "the query is empty")
    assert isinstance(error, InvalidTextError)
    assert (error.index, error.why) == (None, "the query is empty")


def test_the_position_is_read_from_a_message_of_several_lines() -> None:
    error = revive("invalid_text", "text 12 is empty\nleave it out")
    assert isinstance(error, InvalidTextError)
    assert (error.index, error.why) == (12, "is empty\nleave it out")


def test_an_unknown_model_is_bad_input_with_the_status_of_a_missing_thing() -> None:
    error = UnknownModelError("nothing", ["b", "a"])
    assert isinstance(error, BadInputError)
    assert error.status == 404
    assert str(error).startswith("there is no model named 'nothing' (known: a, b); add [models.nothing]")


def test_an_unknown_model_where_none_is_served_says_so() -> None:
    assert "(known: none yet)" in str(UnknownModelError("x", []))


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidTextError, 400),
        (ForeignPageError, 403),
        (TimedOutError, 504),
        (StorageFullError, 507),
        (SemelError, 500),
    ],
)
def test_http_statuses(kind: type[SemelError], status: int) -> None:
    assert kind.status == status


@pytest.mark.parametrize("code", ["invalid_text", "text_too_long", "invalid_vector", "backend_error"])
def test_the_text_is_at_fault(code: str) -> None:
    assert is_fault_of_the_text(code)


@pytest.mark.parametrize("code", [DeviceMemoryError.code, "device_lost", "timeout", "storage_full", "unheard_of"])
def test_the_service_is_at_fault(code: str) -> None:
    assert not is_fault_of_the_text(code)
