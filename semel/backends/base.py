"""What every backend offers, and the values that pass between it and the engine."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from semel.errors import BackendError
from semel.values.text import Input, Pair
from semel.values.vectors import Vectors, cosines, sound_rows

_WARM_UP_S = 2.0
"""A worker that starts two seconds later for each model is started often enough to be a nuisance."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text or pair as the model reads it: ids with special tokens, cut to the model's limit.

    Attributes:
        segments: of a pair, for models that are told which token is the query's and which the document's.
    """

    ids: Sequence[int]
    truncated: bool
    segments: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Spelled:
    """One token of a text, for those who want to see what the model reads.

    Attributes:
        text: the piece of the text, or the name of a special token.
        start, stop: characters of the text; None for a special token.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True)
class ModelInfo:
    """What is loaded where, and why so.

    Attributes:
        dtype: of the arithmetic; the vectors that come out are float32 always.
        why: the reason for device dtype and thread count.
        max_batch_tokens: padded tokens in one batch that suit this device.
        weight_bytes: of memory that the weights take; 0 when nobody knows.
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


SAMPLES: Sequence[Input] = ("warm up", "a second, somewhat longer text: is this device still computing?")
SAMPLE_PAIRS: Sequence[Input] = [Pair(str(text), "a document, somewhat longer than the query") for text in SAMPLES]


class Backend(ABC):
    """One model on one device.

    `tokenize` and `spell` may be called from many threads at once. Everything else is called from one thread, the
    engine's: frameworks keep per-thread state (flush-denormal, OpenMP pools, CUDA streams). The six abstract methods
    are what a framework must bring; the others are built on them.
    """

    @abstractmethod
    def load(self) -> None:
        """Bring the model into memory. Raises ModelLoadError with the way to get what is missing."""

    @abstractmethod
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        """Token ids of `prompt + text`, one a text, in order. A cross-encoder takes pairs."""

    @abstractmethod
    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        """The tokens of a text, not cut to the model's limit.

        Args:
            special: with the special tokens that the model adds.
        """

    @abstractmethod
    def forward(self, batch: Sequence[Tokens]) -> Vectors:
        """Vectors, float32 (len(batch), dim), row i for `batch[i]`.

        Raises:
            DeviceMemoryError: the batch is too large for the memory that is left.
            Exception: whatever the framework raises; the engine finds the text that causes it.
        """

    @abstractmethod
    def get_model_info(self) -> ModelInfo:
        """What was loaded. Call it after `load`."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""

    def samples(self) -> Sequence[Input]:
        """Two inputs that every model of this kind can read."""
        return SAMPLES

    def warm_up(self) -> str:
        """Run a batch of full size, so that no request pays for lazy initialisation; says what was done.

        Left out where such a batch takes long, as with models of long context: it would cost more than it gives.
        """
        info, tokens = self.get_model_info(), self.tokenize(self.samples())
        started = time.perf_counter()
        self.forward(tokens)
        each_s = (time.perf_counter() - started) / (len(tokens) * max(len(read.ids) for read in tokens))
        if each_s * info.max_batch_tokens > _WARM_UP_S:
            return f"no warm-up: a full batch would take about {each_s * info.max_batch_tokens:.0f} s"
        self.forward([tokens[0]] * max(1, info.max_batch_tokens // len(tokens[0].ids)))
        return "warmed up with a full batch"

    def health_check(self) -> None:
        """Raises BackendError unless a known input still gives a sound vector."""
        try:
            vectors = self.embed_texts(self.samples())
        except Exception as error:  # any failure of the framework means: not healthy
            raise BackendError(f"the device failed its health check: {error}") from error
        if not sound_rows(vectors).all():
            raise BackendError("the device failed its health check: it returns NaN or zero vectors")

    def embed_texts(self, texts: Sequence[Input], *, prompt: str = "") -> Vectors:
        """Vectors in one batch, without the engine; float32 (len(texts), dim)."""
        return self.forward(self.tokenize(texts, prompt=prompt))

    def rerank_documents(self, query: str, documents: Sequence[str]) -> npt.NDArray[np.float32]:
        """Scores, float32 (len(documents),), higher is more relevant: here the cosine of the vectors."""
        vectors = self.embed_texts([query, *documents])
        return cosines(vectors[0], vectors[1:])
