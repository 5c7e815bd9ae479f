"""From texts to token ids and back, alike for every backend: the tokenizer that the model's folder brings."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from semel.backends.base import Spelled, Tokens
from semel.backends.models.layout import check_beside
from semel.backends.models.source import ModelSource
from semel.errors import BadInputError, ModelLoadError
from semel.values.text import Input, Pair


class TextTokenizer:
    """A tokenizer of the `tokenizers` library, which cuts at the model's limit and pads nothing. Thread-safe.

    Args:
        model: its name, for messages.
        loaded: what transformers' AutoTokenizer loaded.
        max_tokens: special tokens included.

    Raises:
        ModelLoadError: the model has a slow tokenizer only.
    """

    def __init__(self, model: str, loaded: Any, *, max_tokens: int) -> None:
        fast = getattr(loaded, "backend_tokenizer", None)
        if fast is None:
            raise ModelLoadError(
                f"model {model!r} has only a slow Python tokenizer; save it with "
                "AutoTokenizer.from_pretrained(…).save_pretrained(…), which adds a tokenizer.json"
            )
        fast.no_padding()
        fast.enable_truncation(max_tokens)
        self._model = model
        self._fast = fast
        self._segments = "token_type_ids" in loaded.model_input_names
        self.pad_id: int = loaded.pad_token_id or 0

    def tokenize(self, texts: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        """As `Backend.tokenize`, of texts."""
        if any(isinstance(text, Pair) for text in texts):
            raise BadInputError(f"model {self._model!r} makes vectors of texts and scores no pairs")
        encodings = self._fast.encode_batch_fast([f"{prompt}{text}" for text in texts])
        return [Tokens(e.ids, truncated=bool(e.overflowing)) for e in encodings]

    def tokenize_pairs(self, pairs: Sequence[Input], *, prompt: str = "") -> list[Tokens]:
        """As `Backend.tokenize`, of pairs."""
        given = [(prompt + pair.query, pair.document) for pair in as_pairs(self._model, pairs)]
        encodings = self._fast.encode_batch(given)
        return [
            Tokens(e.ids, truncated=bool(e.overflowing), segments=e.type_ids if self._segments else ())
            for e in encodings
        ]

    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        """As `Backend.spell`."""
        encoding = self.whole.encode(text, add_special_tokens=special)
        tokens = []
        for ident, token, mask, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        ):
            if mask:
                tokens.append(Spelled(ident, token, special=True, start=None, stop=None))
            else:
                tokens.append(Spelled(ident, text[start:stop], special=False, start=start, stop=stop))
        return tokens

    @cached_property
    def whole(self) -> Any:
        """A copy that cuts nothing: cutting is a state of the tokenizer, and others are using it."""
        tokenizer = type(self._fast).from_str(self._fast.to_str())
        tokenizer.no_truncation()
        return tokenizer


def as_pairs(model: str, inputs: Sequence[Input]) -> list[Pair]:
    """The same, known to be pairs. Raises BadInputError for a text."""
    pairs = [item for item in inputs if isinstance(item, Pair)]
    if len(pairs) < len(inputs):
        raise BadInputError(f"model {model!r} scores pairs of query and document, not texts")
    return pairs


def load_tokenizer(source: ModelSource) -> Any:
    """What AutoTokenizer makes of the model's folder; no torch is needed. Raises ModelLoadError."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    # Beside a plain transformer the library does not read that file.
    lower = (source.path / "modules.json").exists() and check_beside(source.name, source.base)
    entry = source.entry
    try:
        loaded = AutoTokenizer.from_pretrained(
            str(source.base), trust_remote_code=entry.trust_remote_code, local_files_only=True
        )
        if lower:  # doing it twice changes nothing
            fast = loaded.backend_tokenizer
            fast.normalizer = normalizers.Sequence(
                [normalizers.Lowercase(), *([fast.normalizer] if fast.normalizer else [])]
            )
        return loaded
    except Exception as error:  # anything can be wrong in a model folder; say which one
        raise ModelLoadError(
            f"model {source.name!r}: the tokenizer in {source.base} cannot be read: {error}"
        ) from error


def check_places(source: ModelSource) -> None:
    """Raises ModelLoadError for texts longer than the model has positions: past its table GPUs read what lies there."""
    places = source.config.get("max_position_embeddings")
    if places is None or "rope_theta" in source.config or "rope_parameters" in source.config:
        return
    counts_from = (
        int(source.config.get("pad_token_id") or 0) + 1 if source.config["model_type"] in _COUNT_FROM_PAD else 0
    )
    if source.described.spec.max_tokens > places - counts_from:
        raise ModelLoadError(
            f"model {source.name!r} has positions for {places - counts_from} tokens and would be given "
            f"{source.described.spec.max_tokens}: add max_tokens = {places - counts_from} to its entry in semel.toml"
        )


_COUNT_FROM_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Their first position is the one behind the padding id."""


def padded(
    batch: Sequence[Tokens], *, pad_id: int, length: int | None = None, rows: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and mask, int64 (rows, length), padded on the right.

    Args:
        length: of each row; the longest of the batch by default.
        rows: more than the batch has repeats its first row, so that no row is all padding, which gives NaN.
    """
    length = length or max(len(tokens.ids) for tokens in batch)
    rows = rows or len(batch)
    ids = np.full((rows, length), pad_id, np.int64)
    mask = np.zeros((rows, length), np.int64)
    for row in range(rows):
        tokens = batch[row if row < len(batch) else 0]
        ids[row, : len(tokens.ids)] = tokens.ids
        mask[row, : len(tokens.ids)] = 1
    return ids, mask


def padded_segments(batch: Sequence[Tokens], *, length: int, rows: int) -> npt.NDArray[np.int64]:
    """Which token is the query's (0) and which the document's (1), int64 (rows, length), as `padded`."""
    segments = np.zeros((rows, length), np.int64)
    for row in range(rows):
        tokens = batch[row if row < len(batch) else 0]
        segments[row, : len(tokens.segments)] = tokens.segments
    return segments
