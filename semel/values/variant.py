"""Variants: how a request departs from the way in which a model reads texts by definition."""

import json
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

TruncateSide: TypeAlias = Literal["left", "right"]
"""The side of a long text that the model does not read."""


@dataclass(frozen=True)
class Variant:
    """A departure from the model's definition. Each one has a vector space, and so keys, of its own.

    Attributes:
        max_tokens: cut texts at this many tokens, special ones included; None for the model's limit.
        truncate_side: cut the end of a text, or its beginning.
        normalize: whether vectors are scaled to length 1; None follows the model's definition.
        document_tokens: first cut a text, or the document of a pair, after this many tokens of its own; None for never.
    """

    max_tokens: int | None = None
    truncate_side: TruncateSide = "right"
    normalize: bool | None = None
    document_tokens: int | None = None

    def to_json(self) -> str:
        """The fields that depart from the definition, as JSON; "" if none does."""
        given = {name: value for name, value in asdict(self).items() if value != getattr(AS_DEFINED, name)}
        return json.dumps(given, sort_keys=True) if given else ""

    @classmethod
    def from_json(cls, text: str) -> "Variant":
        """The variant that `to_json` wrote."""
        return cls(**json.loads(text)) if text else AS_DEFINED


AS_DEFINED = Variant()
"""No departure."""
