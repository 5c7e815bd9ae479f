"""The interface of every backend, and the values that pass between a backend and the engine."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from semel.errors import BackendError
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import AnyVectors, Vectors, cosines, sound_rows, unit_rows

_MAX_WARM_UP_S = 2.0
"""The longest batch of a warm-up: workers start often, and a longer delay for each model would be a nuisance."""

_WARM_UP_STEP = 16
"""Each batch of a warm-up has this many times the texts of the one before."""


class Tokens(NamedTuple):  # one is made for each text, and a frozen dataclass takes three times as long
    """One text or pair as the model reads it.

    Attributes:
        ids: token ids with the special tokens, cut to the model's limit.
        truncated: the text was longer than the limit.
        segments: for each token of a pair, 0 in the query and 1 in the document; empty for other models.
    """

    ids: Sequence[int]
    truncated: bool
    segments: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Spelled:
    """One token of a text, for callers that want to see what the model reads.

    Attributes:
        id: the token id.
        text: the piece of the text, or the name of a special token.
        special: the tokenizer added it; it stands for no piece of the text.
        start, stop: character positions in the text; None for a special token.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class ModelInfo:
    """Which model is loaded on which device, and why it runs as it does.

    Attributes:
        name: the model, as the configuration names it.
        backend: the framework and its version, such as `torch-2.9.0`.
        device: the device's name, such as `cuda:0`.
        dtype: the dtype of the arithmetic; the vectors that come out are always float32.
        why: the reason for the device's dtype and thread count.
        dim: length of a row, as of `Space`.
        max_tokens: the longest text that the model reads, special tokens included.
        max_batch_tokens: padded tokens in one batch that suit this device.
        weight_bytes: memory that the weights take; 0 if unknown.
        normalizes: the model's definition scales its vectors to length 1.
    """

    name: str
    backend: str
    device: str
    dtype: str
    why: str
    dim: int
    max_tokens: int
    max_batch_tokens: int
    weight_bytes: int = 0
    normalizes: bool = False


SAMPLES: Sequence[Input] = ("warm up", "a second, somewhat longer text: is this device still computing?")
"""Texts for the health check and the warm-up of an embedding model."""

SAMPLE_PAIRS: Sequence[Input] = [Pair(str(text), "a document, somewhat longer than the query") for text in SAMPLES]
"""The same for a cross-encoder."""


class Backend(ABC):
    """One model on one device.

    Many threads may call `tokenize` and `spell` at once. Only the engine's thread calls the other methods, because
    frameworks keep per-thread state (OpenMP pools, streams); `load` is called elsewhere if `loads_in_any_thread`. A
    framework must implement the six abstract methods; the other methods are built on them.

    Attributes:
        name: the model, as the configuration names it.
        loads_in_any_thread: `load` may run in any thread, while the engine's thread runs batches of other models. A
            backend that sets it must set per-thread state with each batch, and must itself exclude what its framework
            cannot do at the same time (see `shared.turns`).
        tokenize_at_once: texts that the engine tokenises at a time: few, so that the device starts early.
    """

    name: str
    loads_in_any_thread: bool = False
    tokenize_at_once: int = 256

    @abstractmethod
    def load(self) -> None:
        """Bring the model into memory.

        Raises:
            ModelLoadError: the model or its framework is missing or unfit; the message says how to get it.
            BackendError: the device computes wrong numbers.
        """

    @abstractmethod
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        """Return the tokens of `prompt + text` for each text, in order.

        Args:
            variant: where texts are cut.

        Raises:
            BadInputError: the model cannot read this kind of input (a text for a cross-encoder, or the reverse), or
                not in this variant.
        """

    @abstractmethod
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        """Return the tokens of a text, not cut to the model's limit.

        Args:
            text: without a prompt.
            special: include the special tokens that the model adds.
        """

    @abstractmethod
    def forward(self, batch: Sequence[Tokens]) -> AnyVectors:
        """Return one row for each of the batch, in order.

        They are vectors, float32 (n, dim); logits, float32 (n, 1) of a cross-encoder and (n, labels) of a classifier;
        or the `SparseVectors` of a sparse model.

        The vectors have the length that the model gives them: they are normalised when they are stored.

        Raises:
            DeviceMemoryError: the batch is too large for the memory that is left.
            Exception: whatever the framework raises; the engine finds the text that causes it.
        """

    @abstractmethod
    def get_model_info(self) -> ModelInfo:
        """Describe what `load` loaded."""

    @abstractmethod
    def close(self) -> None:
        """Free the model's memory."""

    def samples(self) -> Sequence[Input]:
        """Two inputs that every model of this kind can read."""
        return SAMPLES

    def warm_up(self) -> str:
        """Run batches up to the full size, so that no request pays for lazy initialisation; returns what was done.

        It stops early where a batch would take more than two seconds, as with models of long context: it would cost
        more than it saves.
        """
        sample = self.tokenize(self.samples())[0]
        full = max(1, self.get_model_info().max_batch_tokens // len(sample.ids))
        texts = min(2, full)
        self.forward([sample] * texts)  # the first batch of a GPU takes seconds, and says nothing about the others
        while True:
            started = time.perf_counter()
            self.forward([sample] * texts)
            taken_s = time.perf_counter() - started
            if texts == full:
                return "warmed up with a full batch"
            more = min(full, texts * _WARM_UP_STEP)
            if taken_s * more / texts > _MAX_WARM_UP_S:
                return f"warmed up with {texts} texts: a full batch would take about {taken_s * full / texts:.0f} s"
            texts = more

    def health_check(self) -> None:
        """Compute vectors for known inputs. Raises BackendError if this fails or gives a NaN or zero vector."""
        try:
            vectors = self.forward(self.tokenize(self.samples()))
        except Exception as error:  # any failure of the framework means: not healthy
            raise BackendError(f"the device failed its health check: {error}") from error
        if not sound_rows(vectors).all():
            raise BackendError("the device failed its health check: it returns NaN or zero vectors")

    def embed_texts(self, texts: Sequence[Input], *, prompt: str = "") -> Vectors:
        """Return vectors as they are stored, float32 (len(texts), dim), from one batch and without the engine."""
        vectors = self.forward(self.tokenize(texts, prompt=prompt))
        return unit_rows(vectors) if self.get_model_info().normalizes else vectors

    def rerank_documents(self, query: str, documents: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return scores, float32 (len(documents),), higher is more relevant: here the cosine of the vectors."""
        vectors = self.embed_texts([query, *documents])
        return cosines(vectors[0], vectors[1:])
