"""From texts to token ids and back, in the same way for every backend: with the tokenizer in the model's folder."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from semel.backends.base import Spelled, Tokens
from semel.backends.models.layout import lower_cases
from semel.backends.models.source import ModelSource
from semel.backends.shared.tokenizer_processes import Question, TokenizerProcesses
from semel.errors import BadInputError, ModelLoadError
from semel.values.text import Input, Pair
from semel.values.variant import AS_DEFINED, Variant

_MARGIN_TOKENS = 512
"""Tokens beyond the model's limit that a head has: a cut changes the tokens next to it. Words of one piece, and the
ways in which byte pairs or a unigram model split a run without a space, are shorter than this by far."""

_CHARACTERS_PER_TOKEN = 8
"""The first head has this many for each token. English has four to five, so it is nearly always long enough."""


class TextTokenizer:
    """A tokenizer of the `tokenizers` library that truncates at the model's limit and pads nothing.

    It is thread-safe, and can be pickled.

    Args:
        model: its name, for messages.
        loaded: the tokenizer that transformers' AutoTokenizer loaded.
        max_tokens: the model's limit, special tokens included.
        special: the model reads special tokens around each text.

    Attributes:
        pad_id: the id of the padding token.

    Raises:
        ModelLoadError: the model has only a slow tokenizer.
    """

    def __init__(self, model: str, loaded: Any, *, max_tokens: int, special: bool = True) -> None:
        fast = getattr(loaded, "backend_tokenizer", None)
        if fast is None:
            raise ModelLoadError(
                f"model {model!r} has only a slow Python tokenizer; save it with "
                "AutoTokenizer.from_pretrained(…).save_pretrained(…), which adds a tokenizer.json"
            )
        fast = _copy(fast)  # padding and truncation are states of a tokenizer, and the library sets them for its calls
        fast.no_padding()
        fast.enable_truncation(max_tokens)
        self._max_tokens = max_tokens
        self._model = model
        self._special = special
        self._fast = fast
        self._cutting_elsewhere = threading.Lock()
        self._segments = "token_type_ids" in loaded.model_input_names
        self._processes: TokenizerProcesses | None = None
        self.pad_id: int = loaded.pad_token_id or 0

    def start_processes(self, count: int) -> None:
        """Have large numbers of texts tokenised by so many processes, until `close`."""
        self._processes = TokenizerProcesses(self, count) if count else None

    def close(self) -> None:
        """End the processes, if there are any."""
        if self._processes is not None:
            self._processes.close()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy in another process needs: no lock, no processes, and no copies of the tokenizer."""
        return {
            name: vars(self)[name] for name in ("_max_tokens", "_model", "_special", "_fast", "_segments", "pad_id")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _cutting_elsewhere=threading.Lock(), _processes=None)

    def tokenize(self, texts: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED) -> list[Tokens]:
        """Tokenise texts as `Backend.tokenize` does. Raises BadInputError for a pair, and for too small a limit."""
        if any(isinstance(text, Pair) for text in texts):
            raise BadInputError(f"model {self._model!r} makes vectors of texts and scores no pairs; send it texts")
        if self._processes is not None and self._processes.serves(texts):
            return self._processes.ask(Question(texts, prompt, variant, pairs=False))
        return self.with_short_documents(texts, variant, lambda short: self._of_texts(short, prompt, variant))

    def _of_texts(self, texts: Sequence[Input], prompt: str, variant: Variant) -> list[Tokens]:
        with self._cutting(variant, is_pair=False) as fast:
            read = [self._read(f"{prompt}{text}", variant) for text in texts]
            encodings = fast.encode_batch_fast(read, add_special_tokens=self._special)
        return [Tokens(e.ids, truncated=bool(e.overflowing)) for e in encodings]

    def tokenize_pairs(
        self, pairs: Sequence[Input], *, prompt: str = "", variant: Variant = AS_DEFINED
    ) -> list[Tokens]:
        """Tokenise pairs as `Backend.tokenize` does. Raises BadInputError for a text, and for too small a limit."""
        if self._processes is not None and self._processes.serves(pairs):
            return self._processes.ask(Question(pairs, prompt, variant, pairs=True))
        return self.with_short_documents(
            as_pairs(self._model, pairs), variant, lambda short: self._of_pairs(short, prompt, variant)
        )

    def _of_pairs(self, pairs: Sequence[Input], prompt: str, variant: Variant) -> list[Tokens]:
        whole = ((prompt + pair.query, pair.document) for pair in as_pairs(self._model, pairs))
        read = [(self._read(query, variant), self._read(document, variant)) for query, document in whole]
        with self._cutting(variant, is_pair=True) as fast:
            encodings = fast.encode_batch(read)
        return [
            Tokens(e.ids, truncated=bool(e.overflowing), segments=e.type_ids if self._segments else ())
            for e in encodings
        ]

    def with_short_documents(
        self, inputs: Sequence[Input], variant: Variant, tokenize: Callable[[Sequence[Input]], list[Tokens]]
    ) -> list[Tokens]:
        """Tokenise texts, or pairs, whose documents are first cut at the variant's `document_tokens`."""
        limit = variant.document_tokens
        if limit is None:
            return tokenize(inputs)
        short = [self._shorten(item, limit) for item in inputs]
        return [
            tokens._replace(truncated=tokens.truncated or after != before)
            for tokens, before, after in zip(tokenize(short), inputs, short, strict=True)
        ]

    def _shorten(self, item: Input, limit: int) -> Input:
        if isinstance(item, Pair):
            return item._replace(document=str(self._shorten(item.document, limit)))
        encoding = self.whole.encode(self._head(item, limit + _MARGIN_TOKENS), add_special_tokens=False)
        return item if len(encoding.ids) <= limit else item[: encoding.offsets[limit - 1][1]]

    @contextmanager
    def _cutting(self, variant: Variant, *, is_pair: bool) -> Iterator[Any]:
        """The tokenizer, which cuts where this variant does; one at a time, except for the model's own cut."""
        if variant.max_tokens is None and variant.truncate_side == "right":
            yield self._fast
            return
        special = self._fast.num_special_tokens_to_add(is_pair) if self._special else 0
        limit = variant.max_tokens or self._max_tokens
        if limit <= special:
            raise BadInputError(
                f"a limit of {limit} tokens leaves no room for a text next to the {special} special tokens of model "
                f"{self._model!r}; ask for at least {special + 1}"
            )
        with self._cutting_elsewhere:
            self._varied.enable_truncation(limit, direction=variant.truncate_side)
            yield self._varied

    def _read(self, text: str, variant: Variant) -> str:
        """As much of a text as decides the tokens that the model reads, see `_head`."""
        enough = self._max_tokens + _MARGIN_TOKENS
        return self._head(text, enough) if variant.truncate_side == "right" else self._tail(text, enough)

    def _head(self, text: str, enough: int) -> str:
        """The beginning of a text, with at least so many tokens, or all of it.

        Tokenising megabytes takes gigabytes, and of a pair the library joins each piece that it cuts off one text with
        each of the other: two texts of some ten thousand words ended the process.

        The cut is at a space, where every tokenizer has a border; in a run without one, the margin makes up for it.
        """
        length = _CHARACTERS_PER_TOKEN * enough
        while length < len(text):
            space = text.rfind(" ", length // 2, length)
            head = text[: length if space == -1 else space].rstrip(" ")
            if self._has(head, enough):
                return head
            length *= 4  # long tokens, or runs of white space
        return text

    def _tail(self, text: str, enough: int) -> str:
        """The end of a text, with at least so many tokens, or all of it; otherwise as `_head`."""
        length = _CHARACTERS_PER_TOKEN * enough
        while length < len(text):
            start = len(text) - length
            space = text.find(" ", start, start + length // 2)
            tail = text[start if space == -1 else space :]
            if self._has(tail, enough):
                return tail
            length *= 4
        return text

    def _has(self, text: str, tokens: int) -> bool:
        return len(self.whole.encode(text, add_special_tokens=False).ids) >= tokens

    def spell(self, text: str, *, special: bool = True) -> list[Spelled]:
        """Return the tokens of a text as `Backend.spell` does."""
        encoding = self.whole.encode(text, add_special_tokens=special and self._special)
        tokens = []
        for token_id, token, is_special, (start, stop) in zip(
            encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
        ):
            if is_special:
                tokens.append(Spelled(token_id, token, special=True, start=None, stop=None))
            else:
                tokens.append(Spelled(token_id, text[start:stop], special=False, start=start, stop=stop))
        return tokens

    @cached_property
    def whole(self) -> Any:
        """A copy that truncates nothing: truncation is a state of the tokenizer, which other threads are using."""
        tokenizer = _copy(self._fast)
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _varied(self) -> Any:
        """A copy that truncates at other places, for one caller at a time."""
        return _copy(self._fast)


def _copy(tokenizer: Any) -> Any:
    return type(tokenizer).from_str(tokenizer.to_str())


def as_pairs(model: str, inputs: Sequence[Input]) -> list[Pair]:
    """Return the inputs as pairs. Raises BadInputError if one is a text."""
    pairs = [item for item in inputs if isinstance(item, Pair)]
    if len(pairs) < len(inputs):
        raise BadInputError(f"model {model!r} scores pairs of query and document, not texts; send it pairs")
    return pairs


def load_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer in a model's folder with AutoTokenizer; torch is not needed. Raises ModelLoadError."""
    from tokenizers import Tokenizer, normalizers
    from transformers import AutoTokenizer

    # Without modules.json, sentence-transformers does not read the file that asks for lower-casing.
    lower = (source.path / "modules.json").exists() and lower_cases(source.name, source.base)
    entry = source.entry
    try:
        if source.is_static:  # its folder has no configuration that AutoTokenizer could read
            fast = Tokenizer.from_file(str(source.base / "tokenizer.json"))
            return SimpleNamespace(backend_tokenizer=fast, model_input_names=(), pad_token_id=0)
        loaded = AutoTokenizer.from_pretrained(
            str(source.base), trust_remote_code=entry.trust_remote_code, local_files_only=True
        )
        if lower:  # a second lower-casing changes nothing
            fast = loaded.backend_tokenizer
            fast.normalizer = normalizers.Sequence(
                [normalizers.Lowercase(), *([fast.normalizer] if fast.normalizer else [])]
            )
        return loaded
    except Exception as error:  # anything can be wrong in a model folder; say which one
        raise ModelLoadError(
            f"model {source.name!r}: the tokenizer in {source.base} cannot be read: {error}"
        ) from error


def padded(
    batch: Sequence[Tokens], *, pad_id: int, length: int | None = None, rows: int | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ids and mask, int64 (rows, length), padded on the right.

    Args:
        batch: at least one text.
        pad_id: the id of the padding token.
        length: tokens in a row; the longest text of the batch by default.
        rows: number of rows; rows after the batch repeat its first row, because a row of padding gives NaN.
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
    """Return the segment of each token, 0 in the query and 1 in the document, int64 (rows, length), like `padded`."""
    segments = np.zeros((rows, length), np.int64)
    for row in range(rows):
        tokens = batch[row if row < len(batch) else 0]
        segments[row, : len(tokens.segments)] = tokens.segments
    return segments
