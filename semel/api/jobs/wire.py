"""The JSON of jobs: requests and the objects in answers."""

import json
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from semel.api.dialects.openai import MOST_NAME_CHARACTERS, ModelName
from semel.api.dialects.variants import VariantFields
from semel.errors import BadInputError
from semel.tasks.jobs.parts import ChunkView, FailedText
from semel.values.job import Counts, IfNoWorker, Job, JobStatus
from semel.values.text import ItemError, lone_surrogate


class JobFields(VariantFields):
    """The options of a job, except its metadata; `semel.values.job.JobOptions` has the same fields for the client."""

    model: ModelName = None
    device: str = Field(default="auto", max_length=MOST_NAME_CHARACTERS)
    input_type: Literal["query", "document", "none"] | None = Field(
        default=None,
        description="Use the model's prompt for texts of this kind, if it has one. Without it, and without "
        "`prompt_name`, the texts are documents.",
    )
    prompt_name: str = Field(default="", max_length=MOST_NAME_CHARACTERS)
    truncate: bool = True
    strict: bool = Field(
        default=False, description="Refuse the whole submission if a row cannot be embedded; it fails in its place."
    )
    if_no_worker: IfNoWorker = Field(
        default="wait",
        description="What the job does when no worker serves its vector space any more: wait for one, or fail. Work "
        "never moves to another space.",
    )
    text_field: str = Field(
        default="text", max_length=MOST_NAME_CHARACTERS, description="The field of a row that holds the text."
    )
    webhook_url: str | None = Field(
        default=None, max_length=2048, description="Receives a signed POST when the job has ended (Standard Webhooks)."
    )


class JobQuery(JobFields):
    """The options of a job as query parameters or form fields."""

    metadata: str = Field(default="{}", description="A JSON object of strings.")

    def given(self) -> dict[str, Any]:
        """The options that the client sent, without defaults. Raises BadInputError for invalid metadata."""
        sent = self.model_dump(include=self.model_fields_set)
        return sent | ({"metadata": metadata_of(self.metadata)} if "metadata" in sent else {})


class JobRequest(JobFields):
    """A job as one JSON body. Send a larger job as NDJSON, one row per line, or as CSV or Parquet."""

    model_config = ConfigDict(
        extra="forbid",  # a misspelt option that was ignored would give wrong vectors
        json_schema_extra={"example": {"model": "minilm", "input": ["one", {"id": 7, "text": "two", "page": 3}]}},
    )

    input: list[Any] = Field(
        description='Texts, or rows: {"text": "…"}, or for a cross-encoder {"query": "…", "document": "…"}. '
        "`id` and every other field of a row are returned with its result."
    )
    metadata: dict[str, str] = Field(default_factory=dict)


class ResultsQuery(BaseModel):
    """Which results of a job are downloaded, and how."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["ndjson", "npy", "arrow", "parquet"] = "ndjson"
    offset: int = Field(default=0, ge=0, description="Start at this text, to continue an interrupted download.")
    limit: int | None = Field(default=None, ge=1, description="The number of texts, at most.")


class CountsObject(BaseModel):
    """Texts of a job by outcome; `done` is the sum of hit, computed, coalesced and failed."""

    total: int
    done: int
    hit: int
    computed: int
    coalesced: int
    failed: int
    truncated: int
    tokens: int
    unread: int = Field(default=0, description="About the tokens that were cut off.")


class ErrorObject(BaseModel):
    """Why a text or a job failed."""

    code: str
    message: str


class JobObject(BaseModel):
    """A job. Times are Unix seconds."""

    id: str
    object: Literal["job"] = "job"
    status: str
    model: str
    prompt_name: str
    kind: str = Field(default="embed", description="What its model computes: embed, cross-encoder, classifier, sparse.")
    dimensions: int = Field(description="Numbers in a row of the results; 0 for sparse vectors, which differ.")
    labels: list[str] = Field(default=[], description="The names of a classifier's scores.")
    device: str
    why: str
    counts: CountsObject
    in_hand: int = Field(
        default=0,
        description="Texts done in chunks that are still running, as workers report them through Redis; `counts` does "
        "not include them yet.",
    )
    texts_per_s: float | None = Field(
        default=None, description="The rate since the job began; null if it has ended or has no text done."
    )
    eta_s: float | None = Field(default=None, description="Seconds left at this rate.")
    error: ErrorObject | None
    metadata: dict[str, str]
    created_at: float
    expires_at: float
    in_progress_at: float | None
    finalizing_at: float | None
    completed_at: float | None
    failed_at: float | None
    expired_at: float | None
    cancelling_at: float | None
    cancelled_at: float | None
    first_result_at: float | None = Field(default=None, description="When its first chunk was finished.")
    retried_at: float | None = Field(default=None, description="When it was last retried.")


class ChunkObject(BaseModel):
    """A slice of a job, sent as one queue message. Times are Unix seconds."""

    position: int
    state: Literal["pending", "sent", "running", "done", "cancelled"]
    first_index: int
    texts: int
    failed: int
    attempts: int
    worker: str
    sent_at: float | None


class ChunkList(BaseModel):
    """A page of the chunks of a job."""

    object: Literal["list"] = "list"
    states: dict[str, int] = Field(description="Chunks of the whole job by state.")
    data: list[ChunkObject]
    has_more: bool


class FailedObject(BaseModel):
    """A text of a job that has no vector, and why."""

    index: int
    id: Any = None
    text: str | None = Field(description="The first 500 characters; null if your API key may only read.")
    error: ErrorObject


class FailedList(BaseModel):
    """A page of the failed texts of a job."""

    object: Literal["list"] = "list"
    data: list[FailedObject]
    has_more: bool


class JobList(BaseModel):
    """A page of jobs."""

    object: Literal["list"] = "list"
    data: list[JobObject]
    has_more: bool


def counts_object(counts: Counts, total: int) -> CountsObject:
    """The wire object of these counts."""
    return CountsObject(
        total=total, done=counts.done, **{name: getattr(counts, name) for name in Counts.__dataclass_fields__}
    )


def error_object(error: ItemError | None) -> ErrorObject | None:
    """The wire object of an error, or None."""
    return None if error is None else ErrorObject(code=error.code, message=error.message)


def job_object(job: Job, *, in_hand: int = 0) -> JobObject:
    """The wire object of a job.

    Args:
        in_hand: texts done in chunks that are still running.
    """
    own = {"object", "dimensions", "labels", "counts", "error", "in_hand", "texts_per_s", "eta_s"}
    same = {name: getattr(job, name) for name in JobObject.model_fields if name not in own}
    in_hand = 0 if job.status.ended else min(in_hand, job.total - job.counts.done)
    rate = _rate(job, in_hand)
    return JobObject(
        **same,
        dimensions=job.dim,
        labels=list(job.head.labels),
        counts=counts_object(job.counts, job.total),
        in_hand=in_hand,
        texts_per_s=None if rate is None else round(rate, 1),
        eta_s=None if rate is None else round((job.total - job.counts.done - in_hand) / rate, 3),
        error=error_object(job.error),
    )


def _rate(job: Job, in_hand: int) -> float | None:
    """Texts per second since the job began; None if it has ended or has no text done."""
    began_at, done = job.in_progress_at, job.counts.done + in_hand
    if job.status is not JobStatus.IN_PROGRESS or began_at is None or not done:
        return None
    return done / max(0.001, time.time() - began_at)


_TEXT_CHARACTERS = 500


def chunk_object(chunk: ChunkView) -> ChunkObject:
    """The wire object of a chunk."""
    return ChunkObject(**vars(chunk))


def failed_object(failed: FailedText, *, with_text: bool) -> FailedObject:
    """The wire object of a failed text; a pair becomes one text, joined by ‖."""
    text = failed.text if isinstance(failed.text, str) else " ‖ ".join(failed.text)
    return FailedObject(
        index=failed.index,
        id=failed.extra.id if failed.extra else None,
        text=text[:_TEXT_CHARACTERS] if with_text else None,
        error=ErrorObject(code=failed.error.code, message=failed.error.message),
    )


def metadata_of(text: str) -> dict[str, str]:
    """Parse metadata from a query parameter or form field. Raises BadInputError if it is no JSON object of strings."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise BadInputError("metadata must be a JSON object whose values are strings")
    check_metadata(given)
    return given


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Check the size of metadata, for which OpenAI has the same bounds, and that an answer could repeat it.

    Raises:
        BadInputError: it is too large, or has a lone surrogate.
    """
    if len(metadata) > 16 or any(len(name) > 64 or len(value) > 512 for name, value in metadata.items()):
        raise BadInputError("metadata may have at most 16 pairs, with keys of 64 and values of 512 characters")
    for name, value in metadata.items():
        if lone_surrogate(name + value):
            raise BadInputError(f"metadata: {name!a} has a lone surrogate, which is not Unicode text")
