"""Receives the rows of a submission: parses them as they arrive, cuts them into chunks, and stores a few at a time.

Memory holds one network buffer and a few chunks, whatever the size of the corpus.
"""

import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from pydantic_core import from_json
from typing_extensions import override

from semel.cache.store import VectorStore
from semel.errors import BadInputError
from semel.settings import Settings
from semel.tasks.jobs.cutting import ChunkCutter
from semel.tasks.jobs.idempotency import Reservation
from semel.tasks.jobs.rows import Added, NewChunk
from semel.tasks.jobs.store import JobStore
from semel.tasks.queue.dispatch import Dispatcher
from semel.values.job import Job
from semel.values.model import Space
from semel.values.text import Extra, Input

T = TypeVar("T")

_CHUNKS_A_WRITE = 8
"""Chunks written in one transaction: few commits, and the write lock is held for about ten milliseconds."""

_MARK = secrets.randbits(60)
"""Stands after each line while several are parsed at once: nobody can write lines that are JSON only together."""

_AFTER_LINE = b",%d," % _MARK


def cutter(settings: Settings, space: Space, *, key_base: bytes, text_field: str, strict: bool = False) -> ChunkCutter:
    """A cutter with the limits of the settings; see `ChunkCutter`."""
    return ChunkCutter(
        space,
        key_base=key_base,
        text_field=text_field,
        chunk_texts=settings.chunk_texts,
        chunk_bytes=settings.chunk_bytes,
        max_text_bytes=settings.max_text_bytes,
        strict=strict,
    )


class Ingest(ABC, Generic[T]):
    """Receives the rows of one submission; a subclass decides what happens to the chunks and what the result is.

    Args:
        key_base: that of the space when the submission began.
        text_field: the field of a row that holds the text.
        strict: refuse the submission if a row cannot be embedded, instead of letting the row fail in its place.
    """

    def __init__(
        self, settings: Settings, space: Space, *, key_base: bytes, text_field: str = "text", strict: bool = False
    ) -> None:
        self.space = space
        self._longest_line = settings.max_text_bytes * 2
        self._cutter = cutter(settings, space, key_base=key_base, text_field=text_field, strict=strict)
        self._rest = b""
        self._passing_over = False  # the rest of a line that is too long
        self._lines = 0

    @abstractmethod
    def take(self, chunks: Sequence[NewChunk]) -> None:
        """Receive the next few chunks, in order."""

    @abstractmethod
    def end(self) -> T:
        """Return the result of the submission; called once, after the last `take`."""

    def touch(self) -> None:
        """Record that the upload is still active although it has not filled a chunk for a while."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that a row must have."""
        return self._cutter.fields

    def feed_lines(self, data: bytes) -> None:
        """Receive NDJSON bytes; `data` may end in the middle of a line.

        A line that is too long, is not JSON, or lacks a field of a row keeps its place, with its error.

        Raises:
            BadInputError: there is such a line, and the submission is strict; the message has its number.
        """
        if self._passing_over:
            _, end, data = data.partition(b"\n")
            self._passing_over = not end
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._take_lines(lines)
        if len(self._rest) > self._longest_line:
            self._lines += 1
            limit = f"{self._longest_line} bytes, twice SEMEL_MAX_TEXT_BYTES"
            self.add_bad(f"line {self._lines}: longer than {limit}; split the text")
            self._rest, self._passing_over = b"", True

    def _take_lines(self, lines: list[bytes]) -> None:
        items = _parse_together(lines)
        for i, line in enumerate(lines):
            self._lines += 1
            if items is not None:
                self.add_row(items[i], f"line {self._lines}")
            elif line.strip():  # an empty line is no record
                self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        try:
            row = json.loads(line)  # accepts lone surrogates, so that only the text with one fails
        except (ValueError, RecursionError) as error:
            self.add_unusable(f"line {self._lines}: not JSON: {error}")
        else:
            self.add_row(row, f"line {self._lines}")

    def add_row(self, row: object, where: str) -> None:
        """Add one row, as `ChunkCutter.add_row` does.

        Raises:
            BadInputError: the row cannot be embedded, and the submission is strict; the message has `where`.
        """
        self._cutter.add_row(row, where)
        self._write_if_full()

    def add_bad(self, message: str, extra: Extra | None = None) -> None:
        """Add a row that could not be read: it keeps its place and carries its error."""
        self._cutter.add_bad(message, extra)
        self._write_if_full()

    def add_unusable(self, message: str, extra: Extra | None = None) -> None:
        """As `add_bad`; if all rows are like that, `finish` refuses the submission."""
        self._cutter.add_unusable(message, extra)
        self._write_if_full()

    def add(self, item: Input) -> None:
        """Add one text or pair, as `ChunkCutter.add` does.

        Raises:
            BadInputError: a text for a cross-encoder, or a pair for an embedding model.
        """
        self._cutter.add(item)
        self._write_if_full()

    def _write_if_full(self) -> None:
        if self._cutter.has(_CHUNKS_A_WRITE):
            self.take(self._cutter.take())

    def finish(self) -> T:
        """Process the rest, and return the result.

        Raises:
            BadInputError: the submission has no rows, or none that is a row of this job.
        """
        if self._rest.strip():
            self._take_lines([self._rest])
        if self._cutter.is_empty:
            raise BadInputError("the list of texts is empty; send at least one text")
        if (why := self._cutter.why_unusable) is not None:
            raise BadInputError(why)
        if rest := self._cutter.take_rest():
            self.take(rest)
        return self.end()


class JobIngest(Ingest[Job]):
    """Adds the rows to a job, starts the job while they arrive, and seals it after the last one.

    Args:
        space: the current space of the job's model.
        job: a job in state `validating`.
        on_added: called after each write with the space, the number of texts without an error, and what was added.
        check_quota: called before each write; raises QuotaExceededError.
        reservation: of the submission's idempotency key, sealed with the job.
    """

    def __init__(
        self,
        settings: Settings,
        space: Space,
        job: Job,
        *,
        jobs: JobStore,
        store: VectorStore,
        dispatcher: Dispatcher,
        on_added: Callable[[Space, int, Added], None],
        check_quota: Callable[[], None] = lambda: None,
        text_field: str = "text",
        strict: bool = False,
        reservation: Reservation | None = None,
    ) -> None:
        super().__init__(settings, space, key_base=job.key_base, text_field=text_field, strict=strict)
        self.job = job
        self._jobs = jobs
        self._store = store
        self._dispatcher = dispatcher
        self._on_added = on_added
        self._check_quota = check_quota
        self._reservation = reservation

    @override
    def take(self, chunks: Sequence[NewChunk]) -> None:
        self._check_quota()
        added = self._jobs.add_chunks(self.job, chunks, lookup=self._store.lookup_on)
        self._on_added(self.space, sum(len(chunk.keys) - len(chunk.errors) for chunk in chunks), added)
        self._dispatcher.top_up(self.job.lane, self.job.device)

    @override
    def touch(self) -> None:
        self._jobs.touch(self.job.id)

    @override
    def end(self) -> Job:
        return self._jobs.seal(self.job.id, self._reservation)


def _parse_together(lines: list[bytes]) -> list[object] | None:
    """Parse all lines at once, three times as fast as one by one; None when they must be parsed one by one."""
    stripped = [line.strip() for line in lines]
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in stripped):
        return None
    try:
        items: list[object] = from_json(b"[" + b"".join(line + _AFTER_LINE for line in lines) + b"0]")
    except ValueError:
        return None
    whole = len(items) == 2 * len(lines) + 1 and all(mark == _MARK for mark in items[1::2])
    return items[:-1:2] if whole else None
