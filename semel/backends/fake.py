"""A backend without weights, for tests and benchmarks of everything around the device.

Its vectors depend on the text, so a swapped row fails a test. It fails where its options ask for it.
"""

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from typing_extensions import override

from semel.backends.base import Backend, ModelInfo, Spelled, Tokens
from semel.errors import BackendError, BadInputError, DeviceMemoryError
from semel.private import NO_ROOM
from semel.values.activation import IDENTITY
from semel.values.model import Kind
from semel.values.sparse import SPARSE_DIM, SparseVector
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import AnyVectors, Vectors, stacked


@dataclass(frozen=True)
class FakeOptions:
    """The options of a source such as `fake:?dim=16&fail_on=poison`.

    Attributes:
        dim: length of a vector; the number of a classifier's labels.
        max_tokens: words that the model reads of a text.
        weights: stands for the content of the weights: another value gives other vectors and another fingerprint.
        text_ms: time that each text takes.
        fail_on: a batch with this word raises an error.
        nan_on: a text with this word gives NaN.
        memory_tokens: a batch above this many padded tokens runs out of memory; 0 for no limit.
        dead_after: the device fails for good after this many batches; 0 for never.
        hang_on: a batch with this word never ends.
        kill_on: a batch with this word kills its process, as a crash of a driver does.
        load_s: seconds that loading takes.
        hang_in: this step never ends: `load`, `health_check`, `warm_up` or `close`.
        unfit: the device fails its self-test, for this reason.
        weight_bytes: memory that the weights appear to take.
        activation: the function from logits to scores, a name of `semel.values.activation`.
        journal: a file that gets a line for each text that reaches the device.
    """

    dim: int = 32
    max_tokens: int = 256
    weights: str = "a"
    text_ms: float = 0.0
    fail_on: str = ""
    nan_on: str = ""
    memory_tokens: int = 0
    dead_after: int = 0
    hang_on: str = ""
    kill_on: str = ""
    load_s: float = 0.0
    hang_in: str = ""
    unfit: str = ""
    weight_bytes: int = 0
    activation: str = IDENTITY
    journal: str = ""

    @classmethod
    def parse(cls, source: str) -> "FakeOptions":
        """Read the options of a source. Raises BadInputError for an unknown option or a value of the wrong type."""
        given = dict(parse_qsl(source.removeprefix("fake:").removeprefix("?")))
        types = {name: type(getattr(cls, name)) for name in cls.__dataclass_fields__}
        if unknown := given.keys() - types.keys():
            raise BadInputError(f"a fake model has no option {sorted(unknown)[0]!r} (known: {', '.join(types)})")
        try:
            return cls(**{name: types[name](value) for name, value in given.items()})
        except ValueError as error:
            raise BadInputError(f"the fake source {source!r} has an option of the wrong type: {error}") from None


class FakeBackend(Backend):
    """A model whose vectors and logits are hashes of the words.

    The score of a cross-encoder is the share of the query's words in the document, and the sparse weight of a word
    depends on how often the text has it.
    """

    loads_in_any_thread = True

    def __init__(self, name: str, options: FakeOptions, *, device: str, kind: Kind = "embed") -> None:
        self.name = name
        self._options = options
        self._device = device
        self._kind = kind
        self._batches = 0
        self._unwritten = ""
        self._words: dict[int, str] = {}

    @override
    def load(self) -> None:
        self._hang_in("load")
        if self._options.load_s:
            time.sleep(self._options.load_s)
        if self._options.unfit:
            raise BackendError(f"the device failed its self-test: {self._options.unfit}")

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        tokens, limit = [], variant.max_tokens or self._options.max_tokens
        read = slice(-limit, None) if variant.truncate_side == "left" else slice(limit)
        for text in texts:
            query, document = text if isinstance(text, Pair) else ("", text)
            query_words, whole = query.split(" ") if query else [], document.split(" ")
            kept = " ".join(whole[: variant.document_tokens])
            words = [*query_words, *(prompt + kept).split(" ")]
            ids = [self._id(word) for word in words[read]]
            segments = ([0] * len(query_words) + [1] * len(words))[read][: len(ids)]
            cut = len(words) > len(ids) or kept != document
            tokens.append(Tokens(ids, truncated=cut, segments=segments))
        return tokens

    @override
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        spelled, start = [Spelled(0, "[CLS]", special=True, start=None, stop=None)] if special else [], 0
        for word in text.split(" "):
            spelled.append(Spelled(self._id(word), word, special=False, start=start, stop=start + len(word)))
            start += len(word) + 1
        return spelled

    @override
    def samples(self) -> Sequence[Input]:
        texts = super().samples()
        return texts if self._kind != "cross-encoder" else [Pair(text, text) for text in texts if isinstance(text, str)]

    @override
    def health_check(self) -> None:
        self._hang_in("health_check")
        super().health_check()

    @override
    def warm_up(self) -> str:
        self._hang_in("warm_up")
        return "a fake model has nothing to warm up"

    def _id(self, word: str) -> int:
        word_id = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=7).digest())
        o = self._options
        if word in (o.fail_on, o.nan_on, o.hang_on, o.kill_on):
            self._words[word_id] = word
        return word_id

    @override
    def forward(self, batch: Sequence[Tokens]) -> AnyVectors:
        self._batches += 1
        o = self._options
        if o.dead_after and self._batches > o.dead_after:
            raise RuntimeError("the fake device is dead")
        if o.memory_tokens and max(len(t.ids) for t in batch) * len(batch) > o.memory_tokens:
            raise DeviceMemoryError(f"the fake device holds {o.memory_tokens} tokens")
        words = [{self._words.get(i, "") for i in t.ids} for t in batch]
        if o.fail_on and any(o.fail_on in w for w in words):
            raise ValueError(f"the fake model fails on {o.fail_on!r}")
        if o.hang_on and any(o.hang_on in w for w in words):
            time.sleep(3600)
        if o.journal:
            self._unwritten += "".join(f"{tokens.ids}\n" for tokens in batch)
            self._write_journal(Path(o.journal))
        if o.kill_on and any(o.kill_on in w for w in words):
            os.kill(os.getpid(), signal.SIGKILL)
        if o.text_ms:
            time.sleep(o.text_ms * len(batch) / 1000)
        rows = [self._row(tokens) for tokens in batch]
        for row, found in zip(rows, words, strict=True):
            if o.nan_on and o.nan_on in found:
                (row.values if isinstance(row, SparseVector) else row)[:] = np.nan
        return stacked(rows)

    def _write_journal(self, journal: Path) -> None:
        """Write what is not written yet. A full disk is no failure of the device: the next batch tries again."""
        try:
            with journal.open("a") as file:
                file.write(self._unwritten)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
        else:
            self._unwritten = ""

    def _row(self, tokens: Tokens) -> Any:
        if self._kind == "cross-encoder":
            return _overlap(tokens)
        if self._kind == "sparse":
            return _counted(tokens)
        vector = self._vector(tokens)
        return vector if self._kind == "embed" else vector / 8192

    def _vector(self, tokens: Tokens) -> Vectors:
        seed = repr((self._options.weights, list(tokens.ids))).encode()
        digest = hashlib.shake_128(seed).digest(2 * self._options.dim)
        return np.frombuffer(digest, "<u2").astype(np.float32) - 32767.5

    @override
    def get_model_info(self) -> ModelInfo:
        return ModelInfo(
            name=self.name,
            backend="fake",
            device=self._device,
            dtype="float32",
            why="a fake model has no weights",
            dim=dim_of(self._kind, self._options.dim),
            max_tokens=self._options.max_tokens,
            max_batch_tokens=4096,
            normalizes=self._kind == "embed",
            weight_bytes=self._options.weight_bytes,
        )

    @override
    def close(self) -> None:
        self._hang_in("close")

    def _hang_in(self, step: str) -> None:
        if self._options.hang_in == step:
            time.sleep(3600)


_VOCABULARY = 100_000
"""The number of words that a sparse fake model can distinguish."""


def dim_of(kind: Kind, dim: int) -> int:
    """Numbers in a row of a model of this kind, if a vector or the labels have `dim`."""
    return {"cross-encoder": 1, "sparse": SPARSE_DIM}.get(kind, dim)


def _counted(tokens: Tokens) -> SparseVector:
    """The logarithm of 1 + the number of times that each word occurs."""
    ids, counts = np.unique(np.array([i % _VOCABULARY for i in tokens.ids], np.uint32), return_counts=True)
    return SparseVector(ids, np.log1p(counts).astype(np.float32))


def _overlap(tokens: Tokens) -> Vectors:
    """The share of the query's words that the document has, float32 (1,)."""
    query = [i for i, segment in zip(tokens.ids, tokens.segments, strict=True) if segment == 0]
    document = {i for i, segment in zip(tokens.ids, tokens.segments, strict=True) if segment == 1}
    return np.array([sum(word in document for word in query) / max(len(query), 1)], np.float32)
