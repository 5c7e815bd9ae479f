"""Cuts the rows of a job into chunks: each row has its key, or an error that keeps its place."""

from collections.abc import Iterator, Sequence
from typing import Any

from semel.cache.keys import input_key
from semel.errors import BadInputError, InvalidTextError
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.values.model import Space
from semel.values.text import Extra, Input, ItemError, Pair, longer_than, size_of

_LEAST_WEIGHT = 1 / 64
"""The weight of the smallest chunk: its message, lease and outcome are work even if its text is one word."""


class ChunkCutter:
    """Cuts the rows of one job into chunks.

    Args:
        key_base: that of the space when the submission began.
        text_field: the field of a row that holds the text.
        chunk_texts, chunk_bytes: a chunk is full when it reaches either limit; `chunk_bytes` counts characters of
            texts, and those of the other fields of their rows.
        max_text_bytes: a text with more characters, or with other fields of more, keeps its place and fails.
        strict: raise the error of a row that cannot be embedded, instead of keeping it in the row's place.
    """

    def __init__(
        self,
        space: Space,
        *,
        key_base: bytes,
        text_field: str = "text",
        chunk_texts: int,
        chunk_bytes: int,
        max_text_bytes: int,
        strict: bool = False,
    ) -> None:
        self.space = space
        self._strict = strict
        self._why_unusable: str | None = None
        self._has_usable = False
        self._key_base = key_base
        self._text_field = text_field
        self._chunk_texts = chunk_texts
        self._chunk_bytes = chunk_bytes
        self._max_text_bytes = max_text_bytes
        self._next_index = 0
        self._full: list[NewChunk] = []
        self._held = 0  # characters in full chunks
        self._begin()

    def _begin(self) -> None:
        self._open = NewChunk(self._next_index, [], [], {}, [])
        self._extras: list[Extra | None] = []
        self._size = self._carried = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that a row must have. A classifier's may have those of a pair instead."""
        return Pair._fields if self.space.kind == "cross-encoder" else (self._text_field,)

    def _fields_of(self, row: dict[Any, Any]) -> tuple[str, ...]:
        is_pair = self.space.kind == "classifier" and self._text_field not in row and row.keys() & set(Pair._fields)
        return Pair._fields if is_pair else self.fields

    @property
    def is_empty(self) -> bool:
        """Whether no row has been added yet."""
        return self._next_index == 0

    @property
    def why_unusable(self) -> str | None:
        """What is wrong with the first row, if no row so far is one; None otherwise."""
        return None if self._has_usable else self._why_unusable

    def has(self, chunks: int) -> bool:
        """Whether `take` would return this many full chunks, or fewer that are as large together."""
        return len(self._full) >= chunks or self._held >= chunks * self._chunk_bytes

    def add_row(self, row: object, where: str) -> None:
        """Add one row: its text or pair, and its other fields, which are returned with its result.

        A row that lacks the fields of a text, or of a pair for a cross-encoder, keeps its place, with its error.

        Args:
            where: names the row in error messages.

        Raises:
            BadInputError: the row cannot be embedded, and the submission is strict.
        """
        rest = dict(row) if isinstance(row, dict) else {}
        fields = self._fields_of(rest)
        values = [rest.pop(name, None) for name in fields]
        row_id = rest.pop("id", None)
        extra = Extra(row_id, rest) if rest or row_id is not None else None
        for name, value in zip(fields, values, strict=True):
            if not isinstance(value, str):
                shape = ", ".join(f'"{field}": "…"' for field in fields)
                why = "is null" if name in dict.fromkeys(row if isinstance(row, dict) else ()) else "is missing"
                why = why if value is None else f"is {type(value).__name__}, not a string"
                self.add_unusable(f'{where}: "{name}" {why}; each row must be {{{shape}}}', extra)
                return
        if size_of_extra(extra) > self._max_text_bytes:
            self.add_bad(f"the other fields of the row are longer than {self._max_text_bytes} characters")
            return
        self.add(values[0] if len(values) == 1 else Pair(*values), extra)

    def add_unusable(self, message: str, extra: Extra | None = None) -> None:
        """As `add_bad`, for what is no row of this job: if all are like that, the submission is wrong as a whole."""
        self._why_unusable = self._why_unusable or message
        self.add_bad(message, extra)

    def add_bad(self, message: str, extra: Extra | None = None) -> None:
        """Add a row that cannot be read: it keeps its place, with `message` as its error.

        Raises BadInputError if the submission is strict.
        """
        if size_of_extra(extra) > self._max_text_bytes:
            extra = None
        self._append(NO_KEY, "", extra, error=ItemError(InvalidTextError.code, message))

    def add(self, item: Input, extra: Extra | None = None) -> None:
        """Add one text or pair; one that cannot be embedded keeps its place, with its error.

        Raises:
            BadInputError: a text for a cross-encoder, a pair for an embedding model, or one that cannot be embedded if
                the submission is strict.
        """
        self.space.check_input(item)
        self._has_usable = True
        try:
            key = input_key(self._key_base, item, self._next_index)
            if size_of(item) > self._max_text_bytes:
                raise InvalidTextError(self._next_index, longer_than(self._max_text_bytes))
        except InvalidTextError as error:
            self._append(NO_KEY, "", extra, error=ItemError.of(error))
        else:
            self._append(key, item, extra)

    def _append(self, key: bytes, item: Input, extra: Extra | None, *, error: ItemError | None = None) -> None:
        if error is not None and self._strict:
            raise BadInputError(f"{error.message} (strict: nothing was accepted)")
        if error is not None:
            self._open.errors[len(self._open.keys)] = error
        self._open.keys.append(key)
        self._open.texts.append(item)
        self._extras.append(extra)
        self._size += size_of(item)
        self._carried += size_of_extra(extra)
        self._next_index += 1
        if len(self._open.keys) >= self._chunk_texts or self._size + self._carried >= self._chunk_bytes:
            self._cut()

    def _cut(self) -> None:
        chunk = self._open
        weight = max(len(chunk.keys) / self._chunk_texts, self._size / self._chunk_bytes, _LEAST_WEIGHT)
        self._full.append(
            NewChunk(chunk.first_index, chunk.keys, chunk.texts, chunk.errors, self._extras, min(weight, 1.0))
        )
        self._held += self._size + self._carried
        self._begin()

    def take(self) -> list[NewChunk]:
        """Remove and return the full chunks, in order."""
        full, self._full, self._held = self._full, [], 0
        return full

    def take_rest(self) -> list[NewChunk]:
        """Like `take`, including the chunk that is not full yet."""
        if self._open.keys:
            self._cut()
        return self.take()


def size_of_extra(extra: Extra | None) -> int:
    """About the characters that the other fields of a row take in its result."""
    if extra is None:
        return 0
    return len(repr(extra.id)) + sum(len(name) + _size_of_value(value) for name, value in extra.metadata.items())


def _size_of_value(value: object) -> int:
    return len(value) if isinstance(value, str) else len(repr(value))


def cut_places(items: Sequence[Input], *, most_texts: int, most_size: int) -> Iterator[slice]:
    """Slices that cut a list into parts of at most `most_texts` texts and `most_size` characters.

    A part has at least one text, even if this text alone exceeds `most_size`.
    """
    first, size = 0, 0
    for at, item in enumerate(items):
        own = size_of(item)
        if at > first and (at - first == most_texts or size + own > most_size):
            yield slice(first, at)
            first, size = at, 0
        size += own
    if items:
        yield slice(first, len(items))
