"""Texts on their way into a job: parsed as they arrive, cut into chunks, taken a few chunks at a time.

Memory holds one network buffer and a few chunks, whatever the corpus.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

from pydantic_core import from_json

from semel.api.dialects.embedding import too_large
from semel.api.services import Services
from semel.cache.keys import input_key
from semel.errors import BadInputError, InvalidTextError
from semel.settings import Settings
from semel.tasks.jobs.store import NO_KEY, NewChunk
from semel.values import Extra, Input, ItemError, Job, Pair, Space, size_of

T = TypeVar("T")

_CHUNKS_A_WRITE = 8
"""Chunks in one transaction: few commits, and the write lock is held for some ten milliseconds."""


class Ingest(ABC, Generic[T]):
    """Takes the rows of one submission; a subclass says what becomes of the chunks, and of the whole.

    Args:
        fingerprint: of the space, when the submission began.
        text_field: which field of a row is the text.
    """

    def __init__(self, settings: Settings, space: Space, *, fingerprint: bytes, text_field: str = "text") -> None:
        self._settings = settings
        self.space = space
        self._fingerprint = fingerprint
        self._text_field = text_field
        self._rest = b""
        self._lines = 0
        self._texts: list[Input] = []
        self._keys: list[bytes] = []
        self._extras: list[Extra | None] = []
        self._errors: dict[int, ItemError] = {}
        self._bytes = 0
        self._next_index = 0
        self._full: list[NewChunk] = []

    @abstractmethod
    def take(self, chunks: Sequence[NewChunk]) -> None:
        """A few chunks, in order."""

    @abstractmethod
    def end(self) -> T:
        """Every chunk was taken."""

    def touch(self) -> None:
        """The upload lives, though it has not filled a chunk for a while."""

    @property
    def fields(self) -> tuple[str, ...]:
        """What a row must have."""
        return (self._text_field,) if self.space.kind == "embed" else Pair._fields

    def feed_lines(self, data: bytes) -> None:
        """Take NDJSON bytes; a line may be cut anywhere.

        Raises:
            BadInputError: a line that is not JSON, or lacks the fields of a row; names the line.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self._settings.max_text_bytes * 2:
            raise BadInputError(
                f"line {self._lines + len(lines) + 1} is longer than {self._settings.max_text_bytes * 2} bytes "
                "(SEMEL_MAX_TEXT_BYTES is half of it); split the text"
            )
        self._take_lines(lines)

    def _take_lines(self, lines: list[bytes]) -> None:
        items = _parse_together(lines)
        for i, line in enumerate(lines):
            self._lines += 1
            if items is not None:
                self.add_row(items[i], f"line {self._lines}")
            elif line.strip():  # an empty line is no record
                self.add_row(_parse(line, self._lines), f"line {self._lines}")

    def add_row(self, row: object, where: str) -> None:
        """Take one row: its text or pair, and the other fields to be carried through to the results.

        Raises:
            BadInputError: it lacks the fields of a text, or of a pair for a cross-encoder.
        """
        carried = dict(row) if isinstance(row, dict) else {}
        values = [carried.pop(name, None) for name in self.fields]
        for name, value in zip(self.fields, values, strict=True):
            if not isinstance(value, str):
                shape = ", ".join(f'"{field}": "…"' for field in self.fields)
                raise BadInputError(f'{where} has no string in "{name}"; each must be {{{shape}}}')
        ident = carried.pop("id", None)
        extra = Extra(ident, carried) if carried or ident is not None else None
        self.add(values[0] if len(values) == 1 else Pair(*values), extra)

    def add_bad(self, message: str, extra: Extra | None = None) -> None:
        """Take a row that cannot be read: it keeps its place and carries its error."""
        self._errors[len(self._keys)] = ItemError(InvalidTextError.code, message)
        self._append(NO_KEY, "", extra, 0)

    def add(self, item: Input, extra: Extra | None = None) -> None:
        """Take one text or pair; one that cannot be embedded keeps its place and carries its error.

        Raises:
            BadInputError: a text for a cross-encoder, or a pair for a model that makes vectors.
        """
        self.space.check_input(item)
        try:
            key = input_key(self._fingerprint, item, self._next_index)
            size = size_of(item)
            if size > self._settings.max_text_bytes:
                raise InvalidTextError(self._next_index, too_large(self._settings))
        except InvalidTextError as error:
            self._errors[len(self._keys)] = ItemError.of(error)
            key, item, size = NO_KEY, "", 0
        self._append(key, item, extra, size)

    def _append(self, key: bytes, item: Input, extra: Extra | None, size: int) -> None:
        self._keys.append(key)
        self._texts.append(item)
        self._extras.append(extra)
        self._bytes += size
        self._next_index += 1
        if len(self._keys) >= self._settings.chunk_texts or self._bytes >= self._settings.chunk_bytes:
            self._cut()

    def _cut(self) -> None:
        first = self._next_index - len(self._keys)
        self._full.append(NewChunk(first, self._keys, self._texts, self._errors, self._extras))
        self._keys, self._texts, self._extras, self._errors, self._bytes = [], [], [], {}, 0
        if len(self._full) >= _CHUNKS_A_WRITE:
            self._write()

    def _write(self) -> None:
        if self._full:
            self.take(self._full)
            self._full = []

    def finish(self) -> T:
        """Take what is left.

        Raises:
            BadInputError: there was no text at all.
        """
        if self._rest.strip():
            self._take_lines([self._rest])
        if self._next_index == 0:
            raise BadInputError("the list of texts is empty; send at least one")
        if self._keys:
            self._cut()
        self._write()
        return self.end()


class JobIngest(Ingest[Job]):
    """Feeds one job, and seals it.

    Args:
        job: in state `validating`.
    """

    def __init__(self, services: Services, job: Job, *, text_field: str = "text") -> None:
        space = services.catalog.space(job.model, job.prompt_name)
        super().__init__(services.settings, space, fingerprint=job.fingerprint, text_field=text_field)
        self._services = services
        self.job = job

    def take(self, chunks: Sequence[NewChunk]) -> None:
        services = self._services
        added = services.jobs.add_chunks(self.job, chunks, lookup=services.store.lookup_on)
        services.metrics.ingested(
            self.space, texts=sum(len(chunk.keys) - len(chunk.errors) for chunk in chunks), added=added
        )
        services.dispatcher.top_up(self.job.lane, self.job.device)

    def touch(self) -> None:
        self._services.jobs.touch(self.job.id)

    def end(self) -> Job:
        return self._services.jobs.seal(self.job.id)


def _parse_together(lines: list[bytes]) -> list[object] | None:
    """All lines in one parse, three times as fast as one for each; None when they need a closer look."""
    stripped = [line.strip() for line in lines]
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in stripped):
        return None
    try:
        items: list[object] = from_json(b"[" + b",".join(lines) + b"]")
    except ValueError:
        return None
    return items if len(items) == len(lines) else None


def _parse(line: bytes, number: int) -> object:
    try:
        return json.loads(line)  # takes lone surrogates, which then fail as that one text
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"line {number} is not JSON: {error}") from None
