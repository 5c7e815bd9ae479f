"""Static embeddings on torch: a vector is the mean of a table's rows for its tokens (StaticEmbedding, model2vec)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

from typing_extensions import override

from semel.backends.base import ModelInfo, Tokens
from semel.backends.shared.tokenizing import TextTokenizer, load_tokenizer
from semel.backends.torch.backend import TorchBackend
from semel.backends.torch.library import weight_bytes

_BATCH_TOKENS = 1 << 16
"""A token takes a row of a table and no product, so small batches would spend their time between batches."""


class TorchStatic(TorchBackend):
    """A model of sentence-transformers that starts with a StaticEmbedding, on one torch device."""

    def _choose_dtype(self) -> tuple[Any, str]:
        return self._torch.float32, "float32: a static embedding adds rows of a table"

    def _build(self, dtype: Any) -> None:
        model, described = self._open(self._library_class(), dtype), self._source.described
        static, *after = model.eval().children()
        self._after = [module for module in after if type(module).__name__ != "Normalize"]  # see `Backend.forward`
        self._model, self._table = model, static.embedding.float().to(self._device)
        self._weight_bytes = weight_bytes(model)
        loaded, limit = load_tokenizer(self._source), described.spec.max_tokens
        self._tokenizer = TextTokenizer(self._source.name, loaded, max_tokens=limit, special=False)
        self._check_dim(described.dim)

    @override
    def _compute(self, batch: Sequence[Tokens]) -> Any:
        ids = self._torch.tensor(list(chain.from_iterable(tokens.ids for tokens in batch)), dtype=self._torch.int64)
        starts = self._torch.tensor([0, *accumulate(len(tokens.ids) for tokens in batch[:-1])])
        features = {"sentence_embedding": self._table(self._move(ids), self._move(starts))}
        for module in self._after:
            features = module(features)
        return features["sentence_embedding"]

    @override
    def get_model_info(self) -> ModelInfo:
        return replace(super().get_model_info(), max_batch_tokens=_BATCH_TOKENS)

    @override
    def close(self) -> None:
        self._table = None
        super().close()
