"""Cross-encoders on torch: sentence-transformers reads and scores the pairs, semel runs the batches.

They are BERT-class classifiers with one label, and causal models whose score is the log-odds of "yes" over "no", such
as Qwen3-Reranker. The logit is that of `CrossEncoder.predict` without an activation function.
"""

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from semel.backends.base import SAMPLE_PAIRS, Tokens
from semel.backends.models.source import ModelSource
from semel.backends.shared.pair_template import check_template_variant
from semel.backends.shared.tokenizing import TextTokenizer, as_pairs
from semel.backends.torch.backend import TorchBackend
from semel.backends.torch.library import weight_bytes
from semel.errors import ModelLoadError
from semel.values.model import Precision
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant

if TYPE_CHECKING:  # the module imports torch, which is loaded with the model
    from semel.backends.torch.packed import PackedEncoder

LONG_SAMPLES: Sequence[Input] = [Pair("a query", "a document of some length. " * repeats) for repeats in (3, 5, 40)]
"""Pairs of other lengths than the samples, one of which is cut by most models."""


class TorchReranker(TorchBackend):
    """A cross-encoder on one torch device; its vectors are float32 (n, 1).

    Args:
        source, device, threads: as for `TorchBackend`.
    """

    def __init__(self, source: ModelSource, *, device: str, threads: int | None = None) -> None:
        super().__init__(source, device=device, threads=threads)
        self._tokenizing = threading.Lock()
        self._head: Any = None  # of the packed encoder: its first tokens → logits

    def _choose_dtype(self) -> tuple[Any, str]:
        """The dtype and why; not bfloat16, which moves a score by 1e-2 and so changes the order of close documents."""
        if self._kind == "cuda" and self._source.entry.precision != "float32":
            return self._torch.float16, "float16: a GPU is fast in it, and scores keep three digits"
        return self._torch.float32, "float32: bfloat16 would change the order of documents with close scores"

    def _build(self, dtype: Any) -> None:
        from sentence_transformers import CrossEncoder

        if self._source.entry.precision in (Precision.INT8, Precision.INT4):
            raise ModelLoadError(
                f"model {self._source.name!r}: a {self._source.entry.kind} is not quantised, because its scores would "
                "lose their order; leave out precision"
            )
        model = self._model = self._open(CrossEncoder, dtype).eval()
        self._check_labels(model.num_labels)
        self._weight_bytes = weight_bytes(model)
        self._check_weights(dtype)
        self._max_tokens = model.max_seq_length = self._source.described.spec.max_tokens
        self._tokenizer = TextTokenizer(self._source.name, model.tokenizer, max_tokens=self._max_tokens)
        sample = model.preprocess(self.samples())
        self._other_inputs = {name: value for name, value in sample.items() if not hasattr(value, "shape")}
        if self._kind in ("cpu", "cuda"):
            self._why += f"; {self._repack()}"

    def _repack(self) -> str:
        """Use the encoder without padding if it gives the same scores; returns which one runs."""
        from semel.backends.torch import packed

        classifier = self._model.transformers_model
        encoder: Any = getattr(classifier, classifier.base_model_prefix)

        def compare(made: "PackedEncoder") -> float:
            batch = self.tokenize([*self.samples(), *LONG_SAMPLES])
            before = self.forward(batch)
            self._packed, self._head = made, packed.first_token_head(classifier)
            scale = max(1.0, float(np.abs(before).max()))  # float16 rounds larger scores to larger steps
            return 1 - float(np.abs(before - self.forward(batch)).max()) / scale

        self._packed, why = packed.rebuild(encoder, partial(packed.on_device, self._kind), compare)
        if self._packed is not None:
            del encoder.encoder  # or its weights would be in memory twice
        return why

    def _check_labels(self, labels: int) -> None:
        """Raises ModelLoadError unless the model computes what its entry says."""
        if labels != 1:
            raise ModelLoadError(
                f"model {self._source.name!r} sorts pairs into {labels} classes and gives no score; use a model with "
                'one label, or give this one kind = "classifier"'
            )

    def _check_weights(self, dtype: Any) -> None:
        """Raises ModelLoadError if the files lack a weight: transformers would initialise it at random."""
        transformer = self._model.transformers_model
        _, loading = type(transformer).from_pretrained(
            self._source.path, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        if missing := sorted(loading["missing_keys"]):
            raise ModelLoadError(
                f"model {self._source.name!r}: its files lack {', '.join(missing[:3])}, so its scoring head was never "
                "trained, and semel does not initialise one at random; use a model that was trained as a reranker"
            )

    @override
    def samples(self) -> Sequence[Input]:
        return SAMPLE_PAIRS

    @override
    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        if not self._source.is_causal:
            return self._tokenizer.tokenize_pairs(texts, prompt=prompt, variant=variant)
        check_template_variant(self._source.name, variant)
        limit = variant.max_tokens or self._max_tokens
        return self._tokenizer.with_short_documents(
            as_pairs(self._source.name, texts), variant, lambda short: self._of_template(short, prompt, limit)
        )

    def _of_template(self, pairs: Sequence[Input], prompt: str, limit: int) -> list[Tokens]:
        tokens = self._preprocess(pairs, prompt, max_length=limit)
        full = [i for i, each in enumerate(tokens) if len(each.ids) >= limit]
        if full:  # cut, or exactly as long as the limit: only its full length can tell
            whole = self._preprocess([pairs[i] for i in full], prompt, truncation=False)
            for i, uncut in zip(full, whole, strict=True):
                tokens[i] = tokens[i]._replace(truncated=len(uncut.ids) > len(tokens[i].ids))
        return tokens

    def _preprocess(self, pairs: Sequence[Input], prompt: str, **options: Any) -> list[Tokens]:
        """Tokenise as the library does, by the chat template. The tokenizer keeps state, so one thread at a time."""
        with self._tokenizing:
            features = self._model.preprocess(list(pairs), prompt=prompt or None, processing_kwargs={"text": options})
        masks = features["attention_mask"].numpy().astype(bool)
        ids: npt.NDArray[np.int64] = features["input_ids"].numpy()
        return [Tokens(ids[row][mask].tolist(), truncated=False) for row, mask in enumerate(masks)]

    def _compute(self, batch: Sequence[Tokens]) -> Any:
        if self._packed is not None:
            packed = self._packed.pack(batch, self._move)
            first = self._packed(packed)[packed.starts[:-1].long()]
            return self._head(first).float().reshape(len(batch), -1)
        rows: dict[str, list[Any]] = {"input_ids": [list(tokens.ids) for tokens in batch]}
        if any(tokens.segments for tokens in batch):
            rows["token_type_ids"] = [list(tokens.segments) or [0] * len(tokens.ids) for tokens in batch]
        padded = self._model.tokenizer.pad(rows, return_tensors="pt")  # on the model's own padding side
        features = {name: tensor.to(self._device) for name, tensor in padded.items()}
        return self._model({**features, **self._other_inputs})["scores"].float().reshape(len(batch), -1)

    @override
    def close(self) -> None:
        self._model = self._packed = self._head = None
