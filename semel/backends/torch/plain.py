"""An encoder with a pooling, loaded by transformers alone: what sentence-transformers would run, a second earlier.

The formulas are those of `sentence_transformers` 6.2 (`modules/pooling.py`); tests compare the vectors bit by bit.
Imports torch and transformers, so import it late.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from semel.backends.models.source import ModelSource
from semel.backends.shared.tokenizing import load_tokenizer

_LEAST_SUM = 1e-9
"""The least divisor of a mean, as in sentence-transformers."""


class PlainModel(nn.Module):
    """The modules of a model with a `plain_pooling`, in the order of sentence-transformers; it normalises nothing.

    Args:
        source: the model.
        path: its folder.
        device, trust_remote_code, local_files_only, model_kwargs: as for SentenceTransformer.
    """

    def __init__(
        self,
        source: ModelSource,
        path: str,
        *,
        device: str,
        trust_remote_code: bool,
        local_files_only: bool,
        model_kwargs: dict[str, Any],
    ) -> None:
        super().__init__()
        options = {"trust_remote_code": trust_remote_code, "local_files_only": local_files_only}
        folder = Path(path) / source.base.relative_to(source.path)
        self.transformer = _Encoder(AutoModel.from_pretrained(str(folder), **options, **model_kwargs))
        self.pooling = _Pooling(first=source.plain_pooling == "cls")
        self.tokenizer = load_tokenizer(source)
        self.to(device)


class _Encoder(nn.Module):
    """Adds the hidden states of the last layer to the features."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.auto_model = model

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**features, "token_embeddings": self.auto_model(**features).last_hidden_state}


class _Pooling(nn.Module):
    """The mean of a text's hidden states, or the first of them."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self._first = first

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        hidden, mask = features["token_embeddings"], features["attention_mask"]
        if self._first:
            return {**features, "sentence_embedding": hidden[:, 0]}
        weights = mask.unsqueeze(-1).expand(hidden.size()).to(hidden.dtype)
        total = torch.sum(hidden * weights, 1)
        return {**features, "sentence_embedding": total / torch.clamp(weights.sum(1), min=_LEAST_SUM)}
