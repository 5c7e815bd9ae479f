"""Tokenising in processes of its own, for devices that are faster than one Python process can tokenise.

A tokenizer releases Python's lock while it works, but not while it makes its lists of ids, and meanwhile the thread
that drives a GPU waits for that lock after each of its hundred calls for a batch. `main` is such a process: it reads
pickled questions from stdin and writes pickled answers to stdout until stdin ends.
"""

import os
import pickle
import queue
import signal
import subprocess
import sys
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, chain, pairwise
from typing import IO, Any, NamedTuple, Protocol

from semel.backends.base import Tokens
from semel.backends.shared import turns
from semel.errors import SemelError
from semel.log import get_log
from semel.values.text import Input
from semel.values.variant import Variant

log = get_log("tokenizer")

_FEWEST = 64
"""Texts that a process gets at once at least: sending them takes as long as tokenising a few."""

_MOST = 256
"""Texts that a process gets at once at most: a process that ends early takes another share."""

_IDS, _FLAGS = "i", "b"  # type codes of `array`: int32 and int8


class Tokenizes(Protocol):
    """A tokenizer that can be pickled; see `TextTokenizer`."""

    def tokenize(self, texts: Sequence[Input], *, prompt: str, variant: Variant) -> list[Tokens]:
        """Tokenise texts."""

    def tokenize_pairs(self, pairs: Sequence[Input], *, prompt: str, variant: Variant) -> list[Tokens]:
        """Tokenise pairs."""


class Question(NamedTuple):
    """What a process is asked: the arguments of `tokenize` or, for `pairs`, `tokenize_pairs`."""

    texts: Sequence[Input]
    prompt: str
    variant: Variant
    pairs: bool


class _Answer(NamedTuple):
    """The tokens of some texts in few objects, because each object takes time to send.

    Attributes:
        ids: int32, those of all texts one after the other.
        ends: where the ids of each text end.
        truncated: one flag for each text.
        segments: int8, one for each id; empty where no text has segments.
    """

    ids: "array[int]"
    ends: "array[int]"
    truncated: "array[int]"
    segments: "array[int]"

    @classmethod
    def of(cls, tokens: Sequence[Tokens]) -> "_Answer":
        return cls(
            ids=array(_IDS, chain.from_iterable(each.ids for each in tokens)),
            ends=array(_IDS, accumulate(len(each.ids) for each in tokens)),
            truncated=array(_FLAGS, (each.truncated for each in tokens)),
            segments=array(_FLAGS, chain.from_iterable(each.segments for each in tokens)),
        )

    def tokens(self) -> list[Tokens]:
        spans = zip(pairwise(chain([0], self.ends)), self.truncated, strict=True)
        ids, segments = memoryview(self.ids), memoryview(self.segments)
        if not self.segments:
            return [Tokens(ids[start:end], cut != 0) for (start, end), cut in spans]
        return [Tokens(ids[start:end], cut != 0, segments[start:end]) for (start, end), cut in spans]


class TokenizerProcesses:
    """A fixed number of tokenizer processes. Thread-safe.

    Args:
        tokenizer: each process receives a copy.
        count: how many processes; they start when they are first needed.
    """

    def __init__(self, tokenizer: Tokenizes, count: int) -> None:
        self._count = count
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._pickled = pickle.dumps(tokenizer)
        for _ in range(count):
            self._idle.put(_Process(self._pickled))
        self._askers = ThreadPoolExecutor(count, thread_name_prefix="tokenise")

    def serves(self, texts: Sequence[Input]) -> bool:
        """Whether texts are so many that asking the processes takes less time than tokenising them here."""
        return len(texts) >= 2 * _FEWEST

    def ask(self, question: Question) -> list[Tokens]:
        """Return the tokens of many texts, in order. Raises what the tokenizer raises."""
        texts = question.texts
        share = min(_MOST, max(_FEWEST, -(-len(texts) // self._count)))
        parts = (question._replace(texts=texts[at : at + share]) for at in range(0, len(texts), share))
        return list(chain.from_iterable(self._askers.map(self._ask, parts)))

    def _ask(self, question: Question) -> list[Tokens]:
        process = self._idle.get()  # never empty: there are as many threads as processes
        try:
            answer = process.ask(question)
        except (EOFError, OSError, pickle.UnpicklingError) as error:  # somebody ended it, or memory ran out
            log.warning("a tokenizer process ended; its texts are tokenised here", reason=process.end() or str(error))
            process = _Process(self._pickled)
            alone: Tokenizes = pickle.loads(self._pickled)  # noqa: S301  # our own copy, which asks no processes
            return _tokenized(alone, question)
        finally:
            self._idle.put(process)
        if isinstance(answer, SemelError):
            raise answer
        turns.give_way()
        return answer.tokens()

    def close(self) -> None:
        """End the processes; questions that run are answered first."""
        self._askers.shutdown()
        while not self._idle.empty():
            self._idle.get().end()


class _Process:
    """One tokenizer process; not thread-safe.

    Args:
        tokenizer: what `pickle.dumps` made of it.
    """

    def __init__(self, tokenizer: bytes) -> None:
        self._tokenizer = tokenizer
        self._running: subprocess.Popen[bytes] | None = None

    def ask(self, question: Question) -> _Answer | SemelError:
        """Send a question and wait for the answer.

        Raises EOFError, OSError or UnpicklingError if the process ends before.
        """
        running = self._running or self._start()
        assert running.stdin is not None  # both are pipes
        assert running.stdout is not None
        _send(running.stdin, question)
        answer: _Answer | SemelError = pickle.load(running.stdout)  # noqa: S301  # written by our own child
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._running = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._running.stdin is not None  # it is a pipe
        self._running.stdin.write(self._tokenizer)
        return self._running

    def end(self) -> str:
        """End the process and wait for it; returns how it ended, or "" if it never ran."""
        if self._running is None:
            return ""
        self._running.stdout.close()  # type: ignore[union-attr]
        try:
            self._running.stdin.close()  # type: ignore[union-attr]
        except OSError:  # what was not sent yet cannot be sent any more
            self._running.kill()
        return f"its exit status is {self._running.wait()}"


def _send(pipe: IO[bytes], value: object) -> None:
    pickle.dump(value, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _tokenized(tokenizer: Tokenizes, question: Question) -> list[Tokens]:
    method = tokenizer.tokenize_pairs if question.pairs else tokenizer.tokenize
    return method(question.texts, prompt=question.prompt, variant=question.variant)


def _answer(tokenizer: Tokenizes, question: Question) -> _Answer | SemelError:
    try:
        return _Answer.of(_tokenized(tokenizer, question))
    except SemelError as error:
        return error


def main() -> None:
    """Answer questions until stdin ends, or nobody reads the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a stray print must not end up between the answers
    tokenizer: Any = pickle.load(questions)  # noqa: S301  # written by our own parent
    while True:
        try:
            question = pickle.load(questions)  # noqa: S301
            _send(answers, _answer(tokenizer, question))
        except (EOFError, BrokenPipeError):
            return
