"""Requests and answers about the likeness of pairs of texts, as vLLM defines them."""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from semel.api.dialects.embedding import texts_of
from semel.api.dialects.openai import ModelName
from semel.api.dialects.strict import StrictRequest
from semel.errors import BadInputError
from semel.settings import Settings
from semel.values.text import Pair
from semel.values.variant import Variant

_FIRST = ("text_1", "queries", "data_1")
_SECOND = ("text_2", "documents", "data_2", "items")


class ScoreRequest(StrictRequest):
    """vLLM's request for scores: one text against many, or pairs of two lists of one length."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"text_1": "a pet", "text_2": ["a cat", "a stone"]}}, populate_by_name=True
    )

    model: ModelName = None
    text_1: Any = Field(
        validation_alias=AliasChoices(*_FIRST), description="A text, or a list; also `queries`, `data_1`."
    )
    text_2: Any = Field(
        validation_alias=AliasChoices(*_SECOND), description="A text, or a list; also `documents`, `data_2`, `items`."
    )
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Cut pairs at this many tokens; -1 for the model's limit."
    )
    use_activation: bool | None = Field(default=None, description="False returns a cross-encoder's logits.")

    @property
    def variant(self) -> Variant:
        """How the pairs are read."""
        limit = self.truncate_prompt_tokens
        return Variant(max_tokens=None if limit in (None, -1) else limit)

    def pairs(self, settings: Settings) -> list[Pair]:
        """The pairs to score, in order.

        Raises:
            BadInputError: a list is empty or too long, or the two lists do not fit.
            InvalidTextError: a text is too long.
        """
        first = texts_of(self.text_1, settings, name="text_1")
        second = texts_of(self.text_2, settings, name="text_2")
        if len(first) == 1:
            first *= len(second)
        if len(first) != len(second):
            raise BadInputError(
                f"text_1 has {len(first)} texts and text_2 has {len(second)}: send one text in text_1, or as many as "
                "in text_2"
            )
        return [Pair(*both) for both in zip(first, second, strict=True)]


class Score(BaseModel):
    """The score of the pair at position `index`."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(BaseModel):
    """The scores in the order of the pairs. `kind` names how they were computed."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: dict[str, int]
    kind: str = Field(description="semel: cross-encoder, or embedding similarity.")
