"""Writes the output and error files of a batch, line by line in the order of the input."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from semel.api.batch.lines import ENDPOINTS, Line, Row, raw_lines, read_line, request_of
from semel.api.edge.as_json import as_json
from semel.api.edge.problems import problem_body
from semel.api.jobs.results import ResultReader
from semel.api.services import Services
from semel.cache.keys import input_key
from semel.errors import BadInputError, ConflictError
from semel.tasks.jobs.batches import Batch
from semel.tasks.jobs.rows import NO_KEY
from semel.values.job import Job
from semel.values.model import Space
from semel.values.text import Input, ItemError, Outcome
from semel.values.variant import Variant

Place = tuple[str, str, Variant]
"""Model, prompt name and variant; all inputs of one place form one job, in the order of the lines."""


@dataclass
class Written:
    """What the files hold so far.

    Attributes:
        completed, failed: lines in the output and in the error file.
        undone: lines among `failed` that were not run.
        cached_tokens: tokens among `input_tokens` whose vectors were in the cache.
    """

    completed: int = 0
    failed: int = 0
    undone: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0


class OutputWriter:
    """Writes the two files of one batch.

    Args:
        jobs: the batch's jobs by place; the lines of a missing job are reported as not done.
        why_undone: the error for lines that were not done.
    """

    def __init__(self, services: Services, batch: Batch, jobs: Mapping[Place, Job], *, why_undone: ItemError) -> None:
        self._services = services
        self._batch = batch
        self._jobs = jobs
        self._why_undone = why_undone
        self._rows = {place: rows_in_order(services.results, job) for place, job in jobs.items()}
        self.written = Written()

    def write(self, output: BinaryIO, errors: BinaryIO, *, after_line: Callable[[], None]) -> Written:
        """Write the answer to every input line into one of the two files; calls `after_line` after each.

        Raises:
            ConflictError: the rows no longer belong to the lines.
            UnavailableError: the database does not answer; write again later.
        """
        path = self._services.stores.files.path(self._batch.input_file_id)
        for number, raw in raw_lines(path, max_bytes=self._services.settings.max_body_bytes):
            line = read_line(number, raw, endpoint=self._batch.endpoint)
            status, body = self._outcome(line)
            response, error = None, None
            if status is None:
                error = {"code": self._why_undone.code, "message": self._why_undone.message}
            else:
                response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": body}
            record = {"id": f"batch_req_{uuid.uuid4().hex}", "custom_id": line.custom_id}
            target = output if status == 200 else errors
            target.write(as_json({**record, "response": response, "error": error}) + b"\n")
            self.written.completed += status == 200
            self.written.failed += status != 200
            self.written.undone += status is None
            after_line()
        return self.written

    def _outcome(self, line: Line) -> tuple[int | None, Any]:
        """HTTP status and body of the answer to a line; (None, None) when it was not done.

        An outage is raised, because it is not the line's fault: the whole output is written again when it is over.
        """
        endpoint = self._batch.endpoint
        try:
            request = request_of(self._services, endpoint, line)
        except BadInputError as error:
            return problem_body(ENDPOINTS[endpoint].dialect, error)
        rows = [row for space, item in request.inputs if (row := self._row(place_of(space), item)) is not None]
        if len(rows) < len(request.inputs):
            return None, None
        for index, row in enumerate(rows):
            if row.error is not None:
                return problem_body(ENDPOINTS[endpoint].dialect, request.failed(index, row.error))
        try:
            body = request.answer(rows)
        except BadInputError as error:
            return problem_body(ENDPOINTS[endpoint].dialect, error)
        self.written.input_tokens += sum(row.tokens for row in rows)
        self.written.cached_tokens += sum(row.tokens for row in rows if row.outcome is Outcome.HIT)
        return 200, body

    def _row(self, place: Place, item: Input) -> Row | None:
        """The next row of a job, checked to belong to this input: a shifted row would be a wrong vector."""
        if place not in self._rows:
            return None
        row = next(self._rows[place], None)
        if row is None or row.key == NO_KEY:  # a row without a key has an error and no vector
            return row
        if row.key != input_key(self._jobs[place].key_base, item):
            raise ConflictError("the model's prompts changed while the batch ran; submit it again")
        return row


def place_of(space_or_job: Space | Job) -> Place:
    """The place of a space's inputs, or of a job."""
    return space_or_job.model, space_or_job.prompt_name, space_or_job.variant


def rows_in_order(results: ResultReader, job: Job) -> Iterator[Row | None]:
    """Yield a row for each input of a job, in order; None for an input that was not done."""
    position = 0
    for chunk, rows in results.chunks(job):
        yield from (None for _ in range(chunk.first_index - position))
        for i, outcome in enumerate(rows.outcomes):
            yield Row(chunk.keys[i], rows.vectors[i], outcome, rows.tokens[i], rows.truncated[i], rows.errors.get(i))
        position = chunk.first_index + len(rows.outcomes)
    yield from (None for _ in range(job.total - position))
