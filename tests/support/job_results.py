"""Run a job without HTTP, and read its results in any format."""

import json
from collections.abc import Sequence
from typing import Any

from semel.api.jobs.result_formats import FORMATS
from semel.api.jobs.submission import new_job
from semel.api.jobs.wire import JobRequest
from semel.values.job import Job
from tests.support.parts import Parts


def run(running: Parts, rows: Sequence[Any], **options: Any) -> Job:
    with new_job(running.services, JobRequest(input=[], **options)) as ingest:
        for i, row in enumerate(rows):
            ingest.add_row(row, f"input[{i}]") if isinstance(row, dict) else ingest.add(row)
        return ingest.finish()


def read(running: Parts, job: Job, fmt: str, span: range | None = None) -> bytes:
    span = range(job.total) if span is None else span
    _, write = FORMATS[fmt]
    return b"".join(write(job, span, running.services.results.read(job, span, may_submit=True)))


def lines(running: Parts, job: Job, span: range | None = None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read(running, job, "ndjson", span).splitlines()]


def embed(running: Parts, texts: Sequence[str], model: str = "fake") -> Any:
    return running.services.pipeline.embed(running.services.stores.catalog.space(model), list(texts)).vectors
