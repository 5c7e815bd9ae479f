"""Pairs as a language model reads them: through the chat template of its tokenizer.

The rules are those of `sentence_transformers` 6.2 (`base/modules/transformer.py`): the prompt is the system message,
and a text that is too long keeps the end of the template, because the answer is read after it.
"""

from collections.abc import Sequence
from typing import Any

from semel.backends.base import Tokens
from semel.backends.models.source import ModelSource
from semel.backends.shared.tokenizing import as_pairs
from semel.errors import BadInputError, ModelLoadError
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant


class PairTemplate:
    """Renders pairs and tokenises them. Thread-safe.

    Args:
        model: its name, for messages.
        tokenizer: the tokenizer that transformers' AutoTokenizer loaded.
        whole: its fast tokenizer, which truncates nothing.
        max_tokens: the model's limit.

    Raises:
        ModelLoadError: the tokenizer has no chat template.
    """

    def __init__(self, model: str, tokenizer: Any, whole: Any, *, max_tokens: int) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelLoadError(
                f"model {model!r} is a language model without a chat template, so it is not known how it reads a "
                "pair; use a reranker that has one, such as Qwen3-Reranker"
            )
        self._model = model
        self._tokenizer = tokenizer
        self._whole = whole
        self._max_tokens = max_tokens
        self._ends: dict[str, list[int]] = {}

    def tokenize(self, pairs: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        """Tokenise pairs as `Backend.tokenize` does. Raises BadInputError for a text, and for a cut on the left."""
        check_template_variant(self._model, variant)
        limit = variant.max_tokens or self._max_tokens
        return [self._tokenize(pair, prompt, limit) for pair in as_pairs(self._model, pairs)]

    def _tokenize(self, pair: Pair, prompt: str, limit: int) -> Tokens:
        ids = self._render(pair, prompt)
        if len(ids) <= limit:
            return Tokens(ids, truncated=False)
        end = self._end_of_template(prompt)[-limit:]
        return Tokens([*ids[: limit - len(end)], *end], truncated=True)

    def _render(self, pair: Pair, prompt: str) -> list[int]:
        messages = [{"role": "query", "content": pair.query}, {"role": "document", "content": pair.document}]
        if prompt:
            messages = [{"role": "system", "content": prompt}, *messages]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        ids: list[int] = self._whole.encode(text, add_special_tokens=False).ids
        return ids

    def _end_of_template(self, prompt: str) -> list[int]:
        """The tokens that the template puts after the document: the common end of two different pairs."""
        if prompt not in self._ends:
            one, other = self._render(Pair("0", "0"), prompt), self._render(Pair("1 2 3 4", "1 2 3 4"), prompt)
            shorter, same = min(len(one), len(other)), 0
            while same < shorter and one[-1 - same] == other[-1 - same]:
                same += 1
            self._ends[prompt] = one[len(one) - same :] if same < shorter else []
        return self._ends[prompt]


def check_template_variant(model: str, variant: Variant) -> None:
    """Raises BadInputError for a cut on the left, where the template begins."""
    if variant.truncate_side == "left":
        raise BadInputError(
            f"model {model!r} reads pairs through a chat template, which begins on the left: it can be cut on the "
            "right only"
        )


def answer_tokens(source: ModelSource, tokenizer: Any) -> tuple[int, int | None]:
    """Ids of the tokens for "yes" and "no"; without a "no", the score is the logit of "yes".

    Raises:
        ModelLoadError: neither the model's files nor its vocabulary name such tokens.
    """
    for kind, settings, _ in source.modules:
        if kind == "LogitScore":
            return settings["true_token_id"], settings.get("false_token_id")
    vocabulary = tokenizer.get_vocab()
    if "yes" not in vocabulary or "no" not in vocabulary:
        raise ModelLoadError(
            f"model {source.name!r}: its tokenizer has no tokens 'yes' and 'no' for the answer; "
            "use a reranker that has them, such as Qwen3-Reranker"
        )
    return vocabulary["yes"], vocabulary["no"]
