"""Tokenising in other processes gives the same tokens, also when one of the processes ends."""

import os
import signal
from collections.abc import Iterator, Sequence

import psutil
import pytest
from structlog.testing import capture_logs

from semel.backends.base import Tokens
from semel.backends.shared import tokenizer_processes
from semel.backends.shared.tokenizing import TextTokenizer
from semel.errors import BadInputError
from semel.values.text import Input, Pair
from semel.values.variant import Variant
from tests.support.processes import wait_until
from tests.unit.backends.shared.test_tokenizing import loaded

TEXTS = ["the cat", "sat", "the cat sat the cat sat", "漢字", ""] * 100
PAIRS = [Pair("the cat", text or "sat") for text in TEXTS]


@pytest.fixture(scope="module")
def tokenizer() -> Iterator[TextTokenizer]:
    parallel = TextTokenizer("m", loaded(), max_tokens=6)
    parallel.start_processes(2)
    yield parallel
    parallel.close()


@pytest.fixture
def plain() -> TextTokenizer:
    return TextTokenizer("m", loaded(), max_tokens=6)


def lists(tokens: Sequence[Tokens]) -> list[tuple[list[int], bool, list[int]]]:
    return [(list(each.ids), each.truncated, list(each.segments)) for each in tokens]


def children() -> list[psutil.Process]:
    """The tokenizer processes of this one, which other tests may have given other children."""
    return [child for child in psutil.Process().children() if tokenizer_processes.__name__ in " ".join(child.cmdline())]


@pytest.mark.parametrize("variant", [Variant(), Variant(max_tokens=4), Variant(truncate_side="left")])
def test_texts_have_the_same_tokens(tokenizer: TextTokenizer, plain: TextTokenizer, variant: Variant) -> None:
    expected = plain.tokenize(TEXTS, prompt="query: ", variant=variant)
    assert lists(tokenizer.tokenize(TEXTS, prompt="query: ", variant=variant)) == lists(expected)
    assert len(children()) == 2


def test_pairs_have_the_same_tokens_and_segments(tokenizer: TextTokenizer, plain: TextTokenizer) -> None:
    assert lists(tokenizer.tokenize_pairs(PAIRS)) == lists(plain.tokenize_pairs(PAIRS))
    assert any(each.segments for each in plain.tokenize_pairs(PAIRS))


def test_few_texts_are_tokenised_in_this_process(plain: TextTokenizer) -> None:
    before = children()
    plain.start_processes(2)
    assert lists(plain.tokenize(TEXTS[:5])) == lists(TextTokenizer("m", loaded(), max_tokens=6).tokenize(TEXTS[:5]))
    assert children() == before
    plain.close()


@pytest.mark.parametrize("texts", [TEXTS, PAIRS])
def test_an_error_of_the_tokenizer_is_raised_here(tokenizer: TextTokenizer, texts: Sequence[Input]) -> None:
    ask = tokenizer.tokenize_pairs if texts is TEXTS else tokenizer.tokenize
    with pytest.raises(BadInputError, match="model 'm'"):
        ask(texts)


def test_too_small_a_limit_is_an_error_of_the_caller(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadInputError, match="leaves no room"):
        tokenizer.tokenize(TEXTS, variant=Variant(max_tokens=1))


def test_a_process_that_was_killed_is_replaced_and_nothing_is_lost(
    tokenizer: TextTokenizer, plain: TextTokenizer
) -> None:
    expected = lists(plain.tokenize(TEXTS))
    assert lists(tokenizer.tokenize(TEXTS)) == expected
    for child in children():
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda child=child: child.status() == psutil.STATUS_ZOMBIE)
    with capture_logs() as lines:
        assert lists(tokenizer.tokenize(TEXTS)) == expected
    assert {line["reason"] for line in lines} == {"its exit status is -9"}
    assert lists(tokenizer.tokenize(TEXTS)) == expected
    assert len(children()) == 2


def test_closing_ends_the_processes(plain: TextTokenizer) -> None:
    before = children()
    plain.start_processes(2)
    plain.tokenize(TEXTS)
    assert len(children()) == len(before) + 2
    plain.close()
    assert children() == before
