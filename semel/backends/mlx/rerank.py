"""Cross-encoders on MLX: BERT-class classifiers, and language models that answer "yes" or "no" (Qwen3-Reranker).

Their scores are those of `CrossEncoder.predict`, read and scored by the same rules without torch.
"""

from collections.abc import Sequence

import numpy as np

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.mlx.backend import MlxBackend
from semel.backends.models.source import ModelSource
from semel.backends.shared import pair_template as chat
from semel.backends.shared.scoring import activation_of, check_one_score
from semel.backends.shared.tokenizing import TextTokenizer, load_tokenizer, padded_segments
from semel.values.text import Input
from semel.values.vectors import Vectors


class MlxReranker(MlxBackend):
    """A cross-encoder on MLX; its vectors are float32 (n, 1)."""

    def __init__(self, source: ModelSource) -> None:
        super().__init__(source)
        self._chat: chat.PairTemplate | None = None

    def _build(self) -> None:
        source = self._source
        max_tokens = source.described.spec.max_tokens
        self._model = self._open(with_head=True)
        loaded = load_tokenizer(source)
        self._tokenizer = TextTokenizer(source.name, loaded, max_tokens=max_tokens)
        self._activation = activation_of(source)
        if source.is_causal:
            self._chat = chat.PairTemplate(source.name, loaded, self._tokenizer.whole, max_tokens=max_tokens)
            self._yes, self._no = chat.answers(source, loaded)
        else:
            check_one_score(source)

    def samples(self) -> Sequence[Input]:
        return SAMPLE_PAIRS

    def tokenize(self, texts: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        if self._chat is not None:
            return self._chat.tokenize(texts, prompt=prompt)
        return self._tokenizer.tokenize_pairs(texts, prompt=prompt)

    def _compute(self, batch: Sequence[Tokens]) -> Vectors:
        ids, mask = self._inputs(batch)
        if self._chat is None:
            segments = padded_segments(batch, length=ids.shape[1], rows=ids.shape[0])
            raw = self._model(ids, mask, self._mx.array(segments))
        else:
            last = self._mx.array([len(tokens.ids) - 1 for tokens in batch])
            hidden = self._model(ids, mask)[: len(batch)]
            logits = self._model.logits(hidden[self._mx.arange(len(batch)), last])
            raw = logits[:, self._yes : self._yes + 1]
            if self._no is not None:
                raw = raw - logits[:, self._no : self._no + 1]
        scores = np.asarray(raw[: len(batch)].astype(self._mx.float32))
        return self._activation(scores)
