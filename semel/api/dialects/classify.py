"""Requests and answers about labels: TEI's /predict and vLLM's /classify."""

import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.embedding import computed, too_large
from semel.api.dialects.openai import ModelName
from semel.api.dialects.strict import StrictRequest
from semel.api.dialects.tei import Direction, Truncate
from semel.api.services import Services
from semel.errors import BadInputError, EmptyInputError, InvalidTextError, TooManyTextsError
from semel.settings import Settings
from semel.steps import Steps
from semel.values.activation import activated
from semel.values.model import Space
from semel.values.text import Input, Pair
from semel.values.variant import Variant
from semel.values.vectors import Embedded, Vectors


class TeiPredictRequest(StrictRequest):
    """TEI's request to classify a text, a pair of texts, or a list of them."""

    model_config = ConfigDict(json_schema_extra={"example": {"inputs": [["I like you."], ["I do not."]]}})

    model: ModelName = Field(default=None, description="semel: a classifier; null for the default, or the only one.")
    inputs: Any = Field(description='A text, a pair `["a", "b"]`, or a list of `["a"]` and `["a", "b"]`.')
    truncate: Truncate = False
    truncation_direction: Direction = "Right"
    raw_scores: bool = Field(default=False, description="Return logits.")

    @property
    def is_single(self) -> bool:
        """Whether the request has one text or pair, whose answer is not in a list."""
        return not isinstance(self.inputs, list) or not any(isinstance(each, list) for each in self.inputs)

    def items(self, settings: Settings) -> list[Input]:
        """The texts and pairs, in order.

        Raises:
            BadInputError: `inputs` has another shape, or too many of them.
            InvalidTextError: a text is too long.
        """
        given = [self.inputs] if self.is_single else self.inputs
        if not given[0]:
            raise EmptyInputError("inputs is empty; send at least one text")
        if len(given) > settings.max_request_texts:
            raise TooManyTextsError(
                f"inputs has {len(given)} entries, and one request takes at most {settings.max_request_texts}"
            )
        return [_item(each, index, settings) for index, each in enumerate(given)]


def _item(given: Any, index: int, settings: Settings) -> Input:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or len(texts) not in (1, 2) or not all(isinstance(text, str) for text in texts):
        raise BadInputError(f'inputs[{index}] must be a text, ["a text"], or a pair of texts ["a", "b"]')
    if any(len(text) > settings.max_text_bytes for text in texts):
        raise InvalidTextError(index, too_large(settings))
    return texts[0] if len(texts) == 1 else Pair(*texts)


class Prediction(BaseModel):
    """A label, and how well it fits."""

    label: str
    score: float


class ClassifyRequest(StrictRequest):
    """vLLM's request to classify texts."""

    model_config = ConfigDict(json_schema_extra={"example": {"input": ["I like you.", "I do not."]}})

    model: ModelName = None
    input: Any = Field(description="A text, or a list of texts.")
    truncate_prompt_tokens: int | None = Field(
        default=None, ge=-1, description="Cut texts at this many tokens; -1 for the model's limit."
    )
    use_activation: bool | None = Field(default=None, description="False returns logits.")

    @property
    def variant(self) -> Variant:
        """How the texts are read."""
        limit = self.truncate_prompt_tokens
        return Variant(max_tokens=None if limit in (None, -1) else limit)


class Classified(BaseModel):
    """The label of the text at position `index`, and the scores of all labels in the model's order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyResponse(BaseModel):
    """The labels in the order of the texts."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Classified]
    usage: dict[str, int]
    labels: list[str] = Field(description="semel: the names of `probs`.")


def label_scores(
    services: Services, space: Space, items: Sequence[Input], *, truncate: bool = True, raw: bool = False
) -> Steps[tuple[Embedded, Vectors]]:
    """The pipeline's answer, and scores or logits, float32 (items, labels). Raises as `computed`."""
    embedded = yield from computed(services, space, items, truncate=truncate)
    return embedded, embedded.vectors if raw else activated(space.head.activation, embedded.vectors)


def classify_body(space: Space, scores: Vectors, *, tokens: int) -> ClassifyResponse:
    """VLLM's answer for scores, float32 (texts, labels)."""
    labels = list(space.head.labels)
    return ClassifyResponse(
        id=f"classify-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=space.model,
        data=[
            Classified(index=i, label=labels[row.argmax()], probs=row.tolist(), num_classes=len(labels))
            for i, row in enumerate(scores)
        ],
        usage={"prompt_tokens": tokens, "total_tokens": tokens},
        labels=labels,
    )
