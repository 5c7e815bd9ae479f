"""Pairs as a language model reads them: through the chat template that its tokenizer brings.

By the rules of `sentence_transformers` 6.2 (`base/modules/transformer.py`): the prompt is the system's message, and of
a text that is too long the end of the template is kept, because the answer is read behind it.
"""

from collections.abc import Sequence
from typing import Any

from semel.backends.base import Tokens
from semel.backends.models.source import ModelSource
from semel.backends.shared.tokenizing import as_pairs
from semel.errors import ModelLoadError
from semel.values.text import Input, Pair


class PairTemplate:
    """Renders pairs. Thread-safe.

    Args:
        model: its name, for messages.
        tokenizer: what transformers' AutoTokenizer loaded, with a chat template.
        whole: its fast tokenizer, which cuts nothing.
    """

    def __init__(self, model: str, tokenizer: Any, whole: Any, *, max_tokens: int) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ModelLoadError(
                f"model {model!r} is a language model without a chat template, so nothing says how it reads a pair; "
                "take a reranker that brings one, such as Qwen3-Reranker"
            )
        self._model = model
        self._tokenizer = tokenizer
        self._whole = whole
        self._max_tokens = max_tokens
        self._ends: dict[str, list[int]] = {}

    def tokenize(self, pairs: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        """As `Backend.tokenize`, of pairs."""
        return [self._read(pair, prompt) for pair in as_pairs(self._model, pairs)]

    def _read(self, pair: Pair, prompt: str) -> Tokens:
        ids = self._render(pair, prompt)
        if len(ids) <= self._max_tokens:
            return Tokens(ids, truncated=False)
        end = self._end_of_template(prompt)[-self._max_tokens :]
        return Tokens([*ids[: self._max_tokens - len(end)], *end], truncated=True)

    def _render(self, pair: Pair, prompt: str) -> list[int]:
        messages = [{"role": "query", "content": pair.query}, {"role": "document", "content": pair.document}]
        if prompt:
            messages = [{"role": "system", "content": prompt}, *messages]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False)
        ids: list[int] = self._whole.encode(text, add_special_tokens=False).ids
        return ids

    def _end_of_template(self, prompt: str) -> list[int]:
        """The tokens that the template puts behind the document: what two different documents have in common."""
        if prompt not in self._ends:
            one, other = self._render(Pair("0", "0"), prompt), self._render(Pair("1 2 3 4", "1 2 3 4"), prompt)
            same = 0
            while same < min(len(one), len(other)) and one[-1 - same] == other[-1 - same]:
                same += 1
            self._ends[prompt] = one[len(one) - same :] if same < min(len(one), len(other)) else []
        return self._ends[prompt]


def answers(source: ModelSource, tokenizer: Any) -> tuple[int, int | None]:
    """Ids of the tokens that say yes and no; without a no, the logit of yes is the score. Raises ModelLoadError."""
    for kind, settings, _ in source.modules:
        if kind == "LogitScore":
            return settings["true_token_id"], settings.get("false_token_id")
    vocabulary = tokenizer.get_vocab()
    if "yes" not in vocabulary or "no" not in vocabulary:
        raise ModelLoadError(f"model {source.name!r}: its tokenizer has no tokens yes and no to answer with")
    return vocabulary["yes"], vocabulary["no"]
