"""A duty that is repeated in a thread: every error is survived, and logged once."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from semel import repeating
from semel.errors import UnavailableError
from semel.repeating import Repeating


class Lines:
    """In the place of the logger: what was logged, as (level, event, reason)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str | None]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, *, duty, reason=None: self.seen.append((level, f"{duty}: {event}", reason))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(repeating, "log", made)
    return made


class Script:
    """A duty that raises, or not, what a list says for each call; `done` is set after the last."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)
        self.calls = 0
        self.done = threading.Event()

    def __call__(self) -> None:
        self.calls += 1
        if not self._errors:
            self.done.set()
            return
        error = self._errors.pop(0)
        if error is not None:
            raise error


@contextmanager
def running(once: Callable[[], object], **options: Any) -> Iterator[Repeating]:
    duty = Repeating("sweep", once, **{"every_s": 0.001, **options})
    duty.start()
    try:
        yield duty
    finally:
        duty.stop()


def test_the_duty_is_repeated_until_it_is_stopped(lines: Lines) -> None:
    script = Script(None, None, None)
    with running(script) as duty:
        assert script.done.wait(5)
        assert not duty.stopping
    assert duty.stopping
    calls = script.calls
    assert calls >= 4
    time.sleep(0.01)
    assert script.calls == calls, "it was called after stop had returned"
    assert lines.seen == []


def test_several_errors_in_a_row_are_one_line_and_the_recovery_another(lines: Lines) -> None:
    failure = UnavailableError("the database is away")
    script = Script(failure, failure, None)
    with running(script):
        assert script.done.wait(5)
    assert lines.seen == [
        ("warning", "sweep: duty failed, will retry", "the database is away"),
        ("info", "sweep: duty recovered", None),
    ]


def test_a_second_failure_after_a_recovery_is_logged_again(lines: Lines) -> None:
    script = Script(redis.ConnectionError("gone"), None, redis.ConnectionError("gone again"), None)
    with running(script):
        assert script.done.wait(5)
    assert [reason for level, _, reason in lines.seen if level == "warning"] == ["gone", "gone again"]


def test_an_unforeseen_error_is_logged_with_its_traceback_and_survived(lines: Lines) -> None:
    script = Script(ZeroDivisionError("a bug"), ZeroDivisionError("a bug"), None)
    with running(script):
        assert script.done.wait(5)
    assert [level for level, *_ in lines.seen] == ["exception", "info"]


def test_the_first_call_comes_after_a_pause() -> None:
    script = Script()
    with running(script, every_s=60.0):
        assert not script.done.wait(0.05)


def test_the_first_call_may_come_at_once() -> None:
    script = Script()
    with running(script, every_s=60.0, at_once=True):
        assert script.done.wait(5)
    assert script.calls == 1


def test_stopping_waits_for_the_call_that_runs() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(5)
        ended.set()

    duty = Repeating("slow", slow, every_s=60.0, at_once=True)
    duty.start()
    assert begun.wait(5)
    threading.Timer(0.02, go_on.set).start()
    duty.stop()
    assert ended.is_set()
