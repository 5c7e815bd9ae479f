"""What the server answers, as values."""

from dataclasses import dataclass
from typing import Any

from semel.values.job import Counts, JobStatus
from semel.values.text import ItemError


@dataclass(frozen=True)
class RemoteJob:
    """A job as the server tells it; times are Unix seconds."""

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
    """A batch as the server tells it; `completed` and `failed` count its lines."""

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
    """How far a job is: texts/s since the stream of events began, and the seconds left (None when unknown)."""

    job: RemoteJob
    texts_per_s: float
    eta_s: float | None


@dataclass(frozen=True)
class RemoteModel:
    """A model as the server tells it."""

    id: str
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool


@dataclass(frozen=True)
class Relevance:
    """A document's place in the list that was sent, and its score; higher is more relevant."""

    index: int
    score: float


def batch_of(data: dict[str, Any]) -> RemoteBatch:
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
