"""The server's answers as values."""

from dataclasses import dataclass
from typing import Any

from semel.values.job import Counts, JobStatus
from semel.values.text import ItemError


@dataclass(frozen=True)
class RemoteJob:
    """A job as the server reports it. Times are Unix seconds.

    Attributes:
        dimensions: numbers in one vector; 1 for scores.
        why: the reason for the choice of `device`.
        error: why the job failed; None if it did not.
    """

    id: str
    status: JobStatus
    model: str
    dimensions: int
    device: str
    why: str
    total: int
    counts: Counts
    error: ItemError | None
    metadata: dict[str, str]
    created_at: float
    completed_at: float | None


@dataclass(frozen=True)
class RemoteBatch:
    """A batch as the server reports it.

    Attributes:
        total, completed, failed: numbers of requests in its file.
        errors: why the batch as a whole failed.
    """

    id: str
    status: JobStatus
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    total: int
    completed: int
    failed: int
    errors: list[str]


@dataclass(frozen=True)
class JobEvent:
    """The progress of a job.

    Attributes:
        job: its current state.
        texts_per_s: the rate since the stream of events began.
        eta_s: estimated seconds until the job ends; None if unknown.
    """

    job: RemoteJob
    texts_per_s: float
    eta_s: float | None


@dataclass(frozen=True)
class RemoteModel:
    """A model as the server reports it.

    Attributes:
        fingerprint: of its vector space without a prompt, hexadecimal.
        live: whether a live worker serves it.
    """

    id: str
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool


@dataclass(frozen=True)
class Relevance:
    """A document's position in the list of the request, and its score; higher is more relevant."""

    index: int
    score: float


def batch_of(data: dict[str, Any]) -> RemoteBatch:
    """A batch from the server's JSON."""
    counts, errors = data["request_counts"], (data["errors"] or {"data": []})["data"]
    same = {name: data[name] for name in ("id", "input_file_id", "output_file_id", "error_file_id")}
    return RemoteBatch(
        **same,
        status=JobStatus(data["status"]),
        total=counts["total"],
        completed=counts["completed"],
        failed=counts["failed"],
        errors=[error["message"] for error in errors],
    )


def job_of(item: dict[str, Any]) -> RemoteJob:
    """A job from the server's JSON; fields that this version of semel does not know are ignored."""
    counts = {name: item["counts"][name] for name in Counts.__dataclass_fields__}
    job: RemoteJob = _pick(
        RemoteJob,
        {
            **item,
            "status": JobStatus(item["status"]),
            "total": item["counts"]["total"],
            "counts": Counts(**counts),
            "error": ItemError(**item["error"]) if item["error"] else None,
        },
    )
    return job


def _pick(kind: Any, item: dict[str, Any]) -> Any:
    return kind(**{name: item[name] for name in kind.__dataclass_fields__})


def model_of(item: dict[str, Any]) -> RemoteModel:
    """A model from the server's JSON."""
    model: RemoteModel = _pick(RemoteModel, item)
    return model
