"""The fields of requests that ask for another reading of the texts than the model's definition."""

from pydantic import BaseModel, Field

from semel.values.variant import TruncateSide, Variant

_MOST_TOKENS = 1 << 31
"""No model reads more, and the database keeps the number with a job."""


class VariantFields(BaseModel):
    """How a request departs from the model's definition; semel's names, see `semel.values.variant.Variant`."""

    max_tokens: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_TOKENS,
        description="semel: cut texts at this many tokens, special ones included.",
    )
    truncate_side: TruncateSide = Field(default="right", description="semel: cut the end of a text, or its beginning.")
    normalize: bool | None = Field(
        default=None, description="Whether vectors are scaled to length 1; null follows the model's definition."
    )
    document_tokens: int | None = Field(
        default=None,
        ge=1,
        le=_MOST_TOKENS,
        description="semel: first cut a text, or the document of a pair, after this many tokens of its own.",
    )

    @property
    def variant(self) -> Variant:
        """The variant that the request asks for."""
        return Variant(self.max_tokens, self.truncate_side, self.normalize, self.document_tokens)
