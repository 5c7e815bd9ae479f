"""Jobs and their states."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias, TypedDict

from semel.values.activation import AS_STORED, Head
from semel.values.key_base import key_base
from semel.values.model import Kind
from semel.values.read_counts import ReadCounts
from semel.values.text import ItemError, Lane
from semel.values.variant import AS_DEFINED, TruncateSide, Variant

IfNoWorker: TypeAlias = Literal["wait", "fail"]
"""Whether a job waits or fails while no live worker serves its vector space."""


class JobOptions(TypedDict, total=False):
    """The options of a new job.

    Each is a keyword of `Client.submit`, a query parameter of `POST /v1/jobs`, and a field of its JSON body.

    Attributes:
        model: a name from the server's list; None for its default.
        device: `auto`, or a kind of device.
        input_type: `document` (the default), `query` or `none`: selects the model's prompt for such texts, if it has
            one.
        prompt_name: selects a prompt by its name instead.
        truncate: if False, texts above the model's limit fail; by default they are cut.
        strict: refuse the whole submission if a row cannot be embedded; by default it fails in its place.
        if_no_worker: `wait` or `fail` when the last worker of the job's vector space is gone.
        max_tokens, truncate_side, normalize, document_tokens: how the job departs from the model's definition; see
            `semel.values.variant.Variant`.
        text_field: the field of a row that holds the text.
        webhook_url: receives a signed POST when the job has ended.
        metadata: returned with the job.
    """

    model: str | None
    device: str
    input_type: str | None
    prompt_name: str
    truncate: bool
    strict: bool
    max_tokens: int | None
    truncate_side: TruncateSide
    normalize: bool | None
    document_tokens: int | None
    if_no_worker: IfNoWorker
    text_field: str
    webhook_url: str | None
    metadata: dict[str, str]


class JobStatus(StrEnum):
    """The states of OpenAI's Batch object.

    A job is `validating` while its texts are received; workers already compute those that have arrived.
    """

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final; only a retry leaves it."""
        return self in (self.COMPLETED, self.FAILED, self.EXPIRED, self.CANCELLED)


ENDED = tuple(status for status in JobStatus if status.ended)
"""The final states."""

OPEN = tuple(status for status in JobStatus if not status.ended)
"""The states before the final ones."""


@dataclass(frozen=True)
class Counts:
    """The texts of a job by outcome; and how much of them its model read, as of `ReadCounts`."""

    hit: int = 0
    computed: int = 0
    coalesced: int = 0
    failed: int = 0
    truncated: int = 0
    tokens: int = 0
    unread: int = 0

    @property
    def read(self) -> ReadCounts:
        """How much of the texts the model read."""
        return ReadCounts(self.truncated, self.tokens, self.unread)

    @property
    def done(self) -> int:
        """Texts that have an outcome."""
        return self.hit + self.computed + self.coalesced + self.failed


@dataclass(frozen=True)
class Submitter:
    """Who submits a job, for the turns that submitters take on a queue.

    Attributes:
        owner: stands for their API key; empty without keys.
        share: their part of a queue next to the others, greater than 0.
        namespace: whose jobs, files and batches they see and make; empty for the one that all share.
        private: whether the namespace has vectors of its own, too, so that nobody else's text is a hit there.
        quota_bytes: of files and texts of jobs that they may keep; None for any number.
    """

    owner: str = ""
    share: float = 1.0
    namespace: str = ""
    private: bool = False
    quota_bytes: int | None = None

    @property
    def cache_namespace(self) -> str:
        """The namespace of their vectors."""
        return self.namespace if self.private else ""


NOBODY = Submitter()
"""The submitter on a server without keys."""


@dataclass(frozen=True)
class Job:
    """A durable, ordered list of texts or pairs. Times are Unix seconds, UTC.

    Attributes:
        fingerprint: that of its vector space without its variant, SHA-256, 32 bytes.
        why: the reason for the choice of `device`.
        retried_at: when it was last retried; None if never.
        namespace, private: as of its `Submitter`.
        variant: how it departs from the model's definition.
        variant_fingerprint: that of the variant's own vector space; None without a variant.
        kind: what its model computes.
        head: how the stored logits become scores.
    """

    id: str
    status: JobStatus
    model: str
    prompt_name: str
    fingerprint: bytes
    dim: int
    lane: Lane
    device: str
    why: str
    truncate: bool
    total: int
    chunks: int
    chunks_done: int
    counts: Counts
    created_at: float
    expires_at: float
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    first_result_at: float | None = None
    retried_at: float | None = None
    error: ItemError | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    private: bool = False
    variant: Variant = AS_DEFINED
    variant_fingerprint: bytes | None = None
    kind: Kind = "embed"
    head: Head = AS_STORED

    @property
    def cache_namespace(self) -> str:
        """The namespace of its vectors."""
        return self.namespace if self.private else ""

    @property
    def key_base(self) -> bytes:
        """What its keys were made with, 32 bytes."""
        return key_base(self.variant_fingerprint or self.fingerprint, self.cache_namespace)
