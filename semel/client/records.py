"""The server's answers as values."""

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol

from semel.client.upload import ignore
from semel.errors import BadInputError
from semel.values.job import Counts, JobStatus
from semel.values.model import Kind
from semel.values.text import ItemError
from semel.values.vectors import Vectors


class JobCalls(Protocol):
    """What `Client` does with a job."""

    def wait(
        self, job: "RemoteJob", *, timeout_s: float | None, on_progress: "Callable[[RemoteJob], None]"
    ) -> "RemoteJob":
        """Wait until it ends."""

    def cancel(self, job: "RemoteJob") -> "RemoteJob":
        """Stop it."""

    def results(self, job: "RemoteJob") -> Vectors:
        """Its vectors."""

    def to_arrow(self, job: "RemoteJob") -> Any:
        """Its results as a table of pyarrow."""

    def to_pandas(self, job: "RemoteJob") -> Any:
        """Its results as a DataFrame of pandas."""


@dataclass(frozen=True)
class RemoteJob:
    """A job as the server reports it. Times are Unix seconds.

    Attributes:
        dimensions: numbers in one row of the results; 1 for a cross-encoder's score, 0 for sparse vectors.
        why: the reason for the choice of `device`.
        error: why the job failed; None if it did not.
        in_hand: texts done in chunks that are still running, which `counts` does not include yet.
        texts_per_s, eta_s: the rate since the job began, and the seconds left at this rate; None if unknown.
        kind, labels: what its model computes; the names of a classifier's scores.
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
    in_hand: int = 0
    texts_per_s: float | None = None
    eta_s: float | None = None
    kind: Kind = "embed"
    labels: Sequence[str] = ()
    _client: ClassVar[JobCalls | None] = None  # set on each job that a Client has reported; not a part of the record

    @property
    def done(self) -> int:
        """Texts that are done, those in running chunks included."""
        return self.counts.done + self.in_hand

    def bound(self, client: JobCalls) -> "RemoteJob":
        """The same job, with a client for its methods."""
        job = replace(self)
        object.__setattr__(job, "_client", client)
        return job

    def wait(
        self, *, timeout_s: float | None = None, on_progress: "Callable[[RemoteJob], None]" = ignore
    ) -> "RemoteJob":
        """The job when it has ended; as `Client.wait`."""
        return self._bound().wait(self, timeout_s=timeout_s, on_progress=on_progress)

    def cancel(self) -> "RemoteJob":
        """Stop the job; as `Client.cancel`."""
        return self._bound().cancel(self)

    def results(self) -> Vectors:
        """All vectors, float32 (total, dim); as `Client.results`."""
        return self._bound().results(self)

    def to_arrow(self) -> Any:
        """The results as a table of pyarrow; as `Client.to_arrow`."""
        return self._bound().to_arrow(self)

    def to_pandas(self) -> Any:
        """The results as a DataFrame of pandas; as `Client.to_pandas`."""
        return self._bound().to_pandas(self)

    def _bound(self) -> JobCalls:
        if self._client is None:
            raise BadInputError("this job came from AsyncClient: use its methods, such as 'await client.wait(job)'")
        return self._client


@dataclass(frozen=True)
class Estimate:
    """What a job would do.

    Attributes:
        texts, distinct: rows, and different ones among them.
        cached: rows whose vectors are in the cache.
        to_compute: different texts whose vectors are missing.
        failed: rows that cannot be embedded.
        device, why: the pool that would get the job, and the reason.
        queue_s: seconds of work that already wait for it.
        tokens: about those that the model reads in the missing texts.
        truncated, unread_share: about the rows above the model's limit, and the share of all tokens that is cut off.
        compute_s: seconds to compute the missing texts; None while the rate of this model is not measured.
        disk_bytes: about what their vectors take in the database; None for sparse ones, which differ in size.
        cost: of the tokens; None unless the model's entry has a price.
    """

    model: str
    texts: int
    distinct: int
    cached: int
    to_compute: int
    failed: int
    device: str
    why: str
    queue_s: float
    tokens: int
    compute_s: float | None
    disk_bytes: int | None
    cost: float | None
    truncated: int = 0
    unread_share: float = 0.0


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
        fingerprints: prompt name → fingerprint, "" for that without a prompt.
        live: whether a live worker serves it.
        default: requests that name no model use this one.
        kind: what it computes.
    """

    id: str
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool
    default: bool = False
    kind: Kind = "embed"
    fingerprints: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteKey:
    """An API key as the server reports it, without the key itself. Times are Unix seconds.

    Attributes:
        name: its name, or the first digits of its SHA-256.
        last_used_at: None if it was never used.
        kept_bytes, quota_bytes: of files and texts of jobs that it keeps, and may keep; None for any number.
    """

    name: str
    scope: str
    namespace: str
    expires_at: float | None
    last_used_at: float | None
    kept_bytes: int
    quota_bytes: int | None


@dataclass(frozen=True)
class Relevance:
    """A document's position in the list of the request, and its score; higher is more relevant."""

    index: int
    score: float


@dataclass(frozen=True)
class Classification:
    """What a classifier says of a text.

    Attributes:
        label: the one with the highest score.
        scores: label → score, the highest first.
    """

    label: str
    score: float
    scores: dict[str, float]

    @classmethod
    def of(cls, labels: Sequence[str], scores: Sequence[float]) -> "Classification":
        """The classification with these scores, in the order of the labels."""
        ranked = dict(sorted(zip(labels, scores, strict=True), key=lambda each: -each[1]))
        best = next(iter(ranked))
        return cls(best, ranked[best], ranked)


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
    counts = {name: item["counts"][name] for name in Counts.__dataclass_fields__ if name in item["counts"]}
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
    """The record of an item; a field that has a default may be missing, as in the answer of an older server."""
    required = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
    optional = [each.name for each in fields(kind) if each.name in item]
    return kind(**{name: item[name] for name in (*required, *optional)})


def estimate_of(item: dict[str, Any]) -> Estimate:
    """An estimate from the server's JSON."""
    estimate: Estimate = _pick(Estimate, item)
    return estimate


def key_of(item: dict[str, Any]) -> RemoteKey:
    """An API key from the server's JSON."""
    key: RemoteKey = _pick(RemoteKey, item)
    return key


def model_of(item: dict[str, Any]) -> RemoteModel:
    """A model from the server's JSON."""
    model: RemoteModel = _pick(RemoteModel, item)
    return model
