"""Results that nobody reads: bulk texts wait, so that a process that is killed loses little; nothing else waits."""

import time
from collections.abc import Iterator

import pytest

from semel.backends.engine import Engine
from semel.backends.fake import FakeBackend, FakeOptions
from semel.backends.submission import Submission
from semel.values.text import Lane

TEXTS = [f"text {i}" for i in range(300)]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend("m", FakeOptions(text_ms=5), device="cpu")


@pytest.fixture
def engine(backend: FakeBackend) -> Iterator[Engine]:
    made = Engine(max_batch_tokens=40)  # 20 texts, 0.1 s
    made.load(backend)
    yield made
    made.close()


def until_it_stands_still(engine: Engine) -> int:
    """The texts that the engine has computed by then."""
    seen = -1
    while engine.stats.texts != seen:
        seen = engine.stats.texts
        time.sleep(0.4)
    return seen


def read(submission: Submission) -> int:
    return sum(len(part.indices) for part in submission)


def test_bulk_texts_wait_until_results_are_read(engine: Engine, backend: FakeBackend) -> None:
    submission = engine.submit(backend, TEXTS)
    assert until_it_stands_still(engine) <= 80
    assert read(submission) == len(TEXTS)


def test_interactive_texts_and_suspects_do_not_wait_for_them(engine: Engine, backend: FakeBackend) -> None:
    bulk = engine.submit(backend, TEXTS)
    until_it_stands_still(engine)
    assert read(engine.submit(backend, ["at once"], lane=Lane.INTERACTIVE)) == 1
    assert read(engine.submit(backend, ["a suspect"], alone=True)) == 1
    assert read(bulk) == len(TEXTS)


def test_results_of_a_caller_that_has_gone_hold_nobody_up(engine: Engine, backend: FakeBackend) -> None:
    gone = engine.submit(backend, TEXTS)
    until_it_stands_still(engine)
    gone.cancel()
    assert read(engine.submit(backend, TEXTS)) == len(TEXTS)
