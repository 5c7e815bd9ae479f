"""Classifiers on torch: models of transformers with a head that scores labels, for texts and for pairs of texts."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from semel.backends.base import SAMPLES, Tokens
from semel.backends.torch.rerank import TorchReranker
from semel.errors import ModelLoadError
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant


class TorchClassifier(TorchReranker):
    """A classifier on one torch device; its rows are logits, float32 (n, labels)."""

    def _check_labels(self, labels: int) -> None:
        expected = self._source.described.dim
        if labels != expected:
            raise ModelLoadError(
                f"model {self._source.name!r}: its files define {expected} labels, but it returns {labels}"
            )

    @override
    def samples(self) -> Sequence[Input]:
        return SAMPLES

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        tokens: list[Any] = [None] * len(texts)
        for read, places in (
            (self._tokenizer.tokenize_pairs, [i for i, text in enumerate(texts) if isinstance(text, Pair)]),
            (self._tokenizer.tokenize, [i for i, text in enumerate(texts) if not isinstance(text, Pair)]),
        ):
            found = read([texts[i] for i in places], prompt=prompt, variant=variant) if places else []
            for i, each in zip(places, found, strict=True):
                tokens[i] = each
        return tokens
