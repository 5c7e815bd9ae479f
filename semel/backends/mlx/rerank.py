"""Cross-encoders on MLX: BERT-class classifiers, and language models that answer "yes" or "no" (Qwen3-Reranker).

Their scores are those of `CrossEncoder.predict`: pairs are tokenised and scored by the same rules, without torch.
"""

from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.mlx.backend import MlxBackend
from semel.backends.models.source import ModelSource
from semel.backends.shared.pair_template import PairTemplate, answer_tokens
from semel.backends.shared.scoring import check_one_score
from semel.backends.shared.tokenizing import TextTokenizer, load_tokenizer, padded_segments
from semel.values.text import Input
from semel.values.variant import AS_DEFINED, Variant
from semel.values.vectors import Vectors


class MlxReranker(MlxBackend):
    """A cross-encoder on MLX; its vectors are float32 (n, 1).

    Args:
        source: the model.
    """

    def __init__(self, source: ModelSource) -> None:
        super().__init__(source)
        self._template: PairTemplate | None = None

    @override
    def _build(self) -> None:
        source = self._source
        max_tokens = source.described.spec.max_tokens
        self._model = self._open(with_head=True)
        loaded = load_tokenizer(source)
        self._tokenizer = TextTokenizer(source.name, loaded, max_tokens=max_tokens)
        if source.is_causal:
            self._template = PairTemplate(source.name, loaded, self._tokenizer.whole, max_tokens=max_tokens)
            self._yes, self._no = answer_tokens(source, loaded)
        else:
            check_one_score(source)

    @override
    def samples(self) -> Sequence[Input]:
        return SAMPLE_PAIRS

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        if (template := self._template) is not None:
            return self._tokenizer.with_short_documents(
                texts, variant, lambda short: template.tokenize(short, prompt=prompt, variant=variant)
            )
        return self._tokenizer.tokenize_pairs(texts, prompt=prompt, variant=variant)

    @override
    def _compute(self, batch: Sequence[Tokens]) -> Vectors:
        ids, mask = self._inputs(batch)
        if self._template is None:
            segments = padded_segments(batch, length=ids.shape[1], rows=ids.shape[0])
            scores = self._model(ids, mask, self._mx.array(segments))
        else:
            last = self._mx.array([len(tokens.ids) - 1 for tokens in batch])
            hidden = self._model(ids, mask)[: len(batch)]
            logits = self._model.logits(hidden[self._mx.arange(len(batch)), last])
            scores = logits[:, self._yes : self._yes + 1]
            if self._no is not None:
                scores = scores - logits[:, self._no : self._no + 1]
        return np.asarray(scores[: len(batch)].astype(self._mx.float32))
