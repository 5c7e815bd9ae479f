"""Sparse models on torch: SPLADE, by sentence-transformers' SparseEncoder, and the lexical weights of BGE-M3."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from typing_extensions import override

from semel.backends.base import ModelInfo, Tokens
from semel.backends.models.head import LEXICAL_FILE, most_active
from semel.backends.torch.backend import TorchBackend
from semel.errors import ModelLoadError
from semel.values.model import Precision
from semel.values.sparse import SPARSE_DIM, SparseVector, sparse_rows
from semel.values.vectors import AnyVectors

_MOST_LOGITS = 1 << 26
"""Numbers in the logits of a batch, one for each token and each entry of the vocabulary: 256 MB in float32."""


class TorchSparse(TorchBackend):
    """A SparseEncoder of sentence-transformers on one torch device; its vectors are sparse."""

    def _library_class(self) -> Any:
        from sentence_transformers import SparseEncoder

        return SparseEncoder

    def _build(self, dtype: Any) -> None:
        if self._source.entry.precision in (Precision.INT8, Precision.INT4):
            raise ModelLoadError(f"model {self._source.name!r}: a sparse model is not quantised; leave out precision")
        super()._build(dtype)
        self._most_active = most_active(self._source)

    def _rebuild(self) -> str:
        return "plain layers, with the head of a language model"

    def _check_dim(self, expected: int) -> None:
        """Do nothing: the vocabulary defines the size."""

    def _to_host(self, vectors: Any) -> AnyVectors:
        if self._most_active:
            from sentence_transformers.util import select_max_active_dims

            vectors = select_max_active_dims(vectors, max_active_dims=self._most_active)
        rows, columns = vectors.nonzero(as_tuple=True)
        values = super()._to_host(vectors[rows, columns])
        ends = np.cumsum(np.bincount(rows.cpu().numpy(), minlength=len(vectors)))[:-1]
        indices = columns.cpu().numpy().astype(np.uint32)
        return sparse_rows(map(SparseVector, np.split(indices, ends), np.split(values, ends)))

    @override
    def get_model_info(self) -> ModelInfo:
        info, vocabulary = super().get_model_info(), int(self._source.config.get("vocab_size") or 1)
        return replace(info, dim=SPARSE_DIM, max_batch_tokens=min(info.max_batch_tokens, _MOST_LOGITS // vocabulary))


class TorchLexical(TorchBackend):
    """BGE-M3's weights of the tokens that a text has: a linear layer on the hidden states, and the maximum for each id.

    Source: FlagEmbedding's M3 model, whose file `sparse_linear.pt` holds the layer.
    """

    def _build(self, dtype: Any) -> None:
        super()._build(dtype)
        weights = self._torch.load(self._source.path / LEXICAL_FILE, map_location="cpu", weights_only=True)
        layer = self._torch.nn.Linear(weights["weight"].shape[1], 1)
        layer.load_state_dict(weights)
        self._layer = layer.float().to(self._device).eval()
        tokenizer = self._model.tokenizer
        unused = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
        self._unused = np.array([each for each in unused if each is not None])

    def _rebuild(self) -> str:
        return "plain layers"

    def _check_dim(self, expected: int) -> None:
        """Do nothing: the tokenizer defines the size."""

    def _pool(self, features: dict[str, Any]) -> Any:
        """The weight of each token, float32 (texts, tokens)."""
        return self._layer(features["token_embeddings"].float()).squeeze(-1).relu()

    @override
    def forward(self, batch: Sequence[Tokens]) -> AnyVectors:
        weights = super().forward(batch)
        return sparse_rows(
            self._highest(np.asarray(tokens.ids), row) for tokens, row in zip(batch, weights, strict=True)
        )

    def _highest(self, ids: Any, weights: Any) -> SparseVector:
        """The highest weight of each id; special tokens have none."""
        indices, places = np.unique(ids, return_inverse=True)
        values = np.zeros(len(indices), np.float32)
        np.maximum.at(values, places, weights[: len(ids)])
        kept = ~(values <= 0) & ~np.isin(indices, self._unused)  # a NaN stays, and is refused
        return SparseVector(indices[kept].astype(np.uint32), values[kept])

    @override
    def get_model_info(self) -> ModelInfo:
        return replace(super().get_model_info(), dim=SPARSE_DIM)
