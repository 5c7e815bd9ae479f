"""What goes in and out over HTTP."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semel.cache.catalog import InputType
from semel.errors import BadInputError
from semel.tasks.jobs.parts import ChunkState, FailedText
from semel.values import Counts, IfNoWorker, ItemError, Job, as_plain

ModelName: TypeAlias = Annotated[str | None, Field(description="Left out, it is SEMEL_DEFAULT_MODEL of the server.")]

InputTypeOfTexts: TypeAlias = Annotated[
    InputType | None, Field(description="semel: takes the model's prompt for such texts, when it has one.")
]


class EmbeddingsRequest(BaseModel):
    """OpenAI's request for embeddings."""

    model_config = ConfigDict(json_schema_extra={"example": {"model": "minilm", "input": ["The cat sat on the mat."]}})

    input: Any = Field(description="A text, or a list of texts.")
    model: ModelName = None
    encoding_format: Literal["float", "base64"] | None = Field(
        default="float", description="null is float: LiteLLM sends it."
    )
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None
    input_type: InputTypeOfTexts = None
    prompt_name: str = Field(default="", description="semel: which of the model's prompts goes before each text.")
    truncate: bool = Field(default=True, description="semel: false refuses texts above the model's limit.")


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """OpenAI's list of embeddings, in the order of the input."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ModelObject(BaseModel):
    """OpenAI's model object, and what semel knows beside it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "semel"
    dimensions: int
    max_tokens: int
    prompts: list[str]
    fingerprint: str
    live: bool
    default: bool = Field(description="semel: this is who a request means that names no model.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


class JobRequest(BaseModel):
    """A job as one JSON body. Larger ones are sent as NDJSON, one row a line, or as CSV or Parquet."""

    model_config = ConfigDict(
        extra="forbid",  # a wish that nobody hears would be vectors of another kind than were wanted
        json_schema_extra={"example": {"model": "minilm", "input": ["one", {"id": 7, "text": "two", "page": 3}]}},
    )

    input: list[Any] = Field(
        description='Texts, or rows: {"text": "…"}, for a cross-encoder {"query": "…", "document": "…"}. '
        "`id` and every other field of a row come back with its result."
    )
    model: ModelName = None
    device: str = "auto"
    input_type: InputTypeOfTexts = None
    prompt_name: str = ""
    truncate: bool = True
    if_no_worker: IfNoWorker = Field(
        default="wait",
        description="When every worker of its vector space is gone for good: wait for one, or fail. Work never moves "
        "to another space.",
    )
    webhook_url: str | None = Field(
        default=None, description="Gets a signed POST when the job has ended (Standard Webhooks)."
    )
    text_field: str = Field(default="text", description="Which field of a row is the text.")
    metadata: dict[str, str] = Field(default_factory=dict)


class CountsObject(BaseModel):
    total: int
    done: int
    hit: int
    computed: int
    coalesced: int
    failed: int
    truncated: int
    tokens: int


class ErrorObject(BaseModel):
    code: str
    message: str


class JobObject(BaseModel):
    """A job. Times are Unix seconds."""

    id: str
    object: Literal["job"] = "job"
    status: str
    model: str
    prompt_name: str
    dimensions: int
    device: str
    why: str
    counts: CountsObject
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
    first_result_at: float | None = Field(default=None, description="When its first chunk was done.")
    retried_at: float | None = Field(default=None, description="When it was last put back in progress.")


class BadRow(BaseModel):
    """A row that would fail, by its place from 0."""

    index: int
    message: str


class EstimateObject(BaseModel):
    """What a job would do. Nothing was stored or computed for this."""

    object: Literal["estimate"] = "estimate"
    model: str
    texts: int
    distinct: int
    cached: int = Field(description="Texts whose vectors are there, repetitions counted.")
    to_compute: int = Field(description="Distinct texts whose vectors are missing.")
    failed: int = Field(description="Rows that cannot be embedded: empty, too long, no string.")
    device: str
    why: str
    queue_s: float = Field(description="Seconds of work that wait on that device already.")
    compute_s: float | None = Field(description="Seconds for the missing ones; null while no rate is known.")
    preview: list[dict[str, str]] = Field(description="The first texts or pairs, cut at 300 characters.")
    bad_rows: list[BadRow] = Field(description="The first rows that would fail.")


class ChunkObject(BaseModel):
    """A slice of a job, one message. Times are Unix seconds."""

    position: int
    state: Literal["pending", "sent", "running", "done", "cancelled"]
    first_index: int
    texts: int
    failed: int
    attempts: int
    worker: str
    sent_at: float | None


class ChunkList(BaseModel):
    object: Literal["list"] = "list"
    states: dict[str, int] = Field(description="How many chunks of the whole job are in each state.")
    data: list[ChunkObject]
    has_more: bool


class FailedObject(BaseModel):
    """A text of a job that has no vector, and why."""

    index: int
    id: Any = None
    text: str | None = Field(description="Its first 500 characters; null for a key that may only read.")
    error: ErrorObject


class FailedList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FailedObject]
    has_more: bool


class JobList(BaseModel):
    object: Literal["list"] = "list"
    data: list[JobObject]
    has_more: bool


class Readiness(BaseModel):
    """The sum of the pings: part → "ok" or what is wrong."""

    ready: bool
    parts: dict[str, str]


def as_bad_input(error: ValidationError) -> BadInputError:
    """What pydantic found first, as one sentence."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return BadInputError(f"{where}: {first['msg']}")


def counts_object(counts: Counts, total: int) -> CountsObject:
    return CountsObject(
        total=total, done=counts.done, **{name: getattr(counts, name) for name in Counts.__dataclass_fields__}
    )


def error_object(error: ItemError | None) -> ErrorObject | None:
    return None if error is None else ErrorObject(code=error.code, message=error.message)


def job_object(job: Job) -> JobObject:
    own = {"object", "dimensions", "counts", "error"}
    same = {name: getattr(job, name) for name in JobObject.model_fields if name not in own}
    return JobObject(
        **same, dimensions=job.dim, counts=counts_object(job.counts, job.total), error=error_object(job.error)
    )


_SHOWN_CHARACTERS = 500


def chunk_object(chunk: ChunkState) -> ChunkObject:
    return ChunkObject(**as_plain(chunk))


def failed_object(failed: FailedText, *, with_text: bool) -> FailedObject:
    text = failed.text if isinstance(failed.text, str) else " ‖ ".join(failed.text)
    return FailedObject(
        index=failed.index,
        id=failed.extra.id if failed.extra else None,
        text=text[:_SHOWN_CHARACTERS] if with_text else None,
        error=ErrorObject(code=failed.error.code, message=failed.error.message),
    )


WorkerStatus: TypeAlias = Literal["healthy", "standby", "loading", "failed"]
"""healthy: a model is in memory. standby: ready, and loads one when the first work comes. failed: see `why`."""


class Latency(BaseModel):
    """Milliseconds of a message, from the queue to its end; null before the first."""

    avg: float | None
    p50: float | None
    p95: float | None
    p99: float | None


class PoolWorker(BaseModel):
    """One process with one device."""

    id: str
    device: str
    about: str = Field(description="Name and memory of the device.")
    host: str
    pid: int
    status: WorkerStatus
    why: str = Field(description="Of device and dtype; of a failed one, what is wrong.")
    dtype: str
    models: list[str]
    loaded: list[str] = Field(description="Models in memory.")
    started_at: float
    load_time_s: float
    memory_usage_bytes: int
    memory_halvings: int = Field(description="How often memory ran out and batches became smaller.")
    total_requests: int
    texts_per_s: float


class Pool(BaseModel):
    """The workers of one kind of device. Percentiles are of the last 128 messages of each."""

    device: str
    status: WorkerStatus = Field(description="Of the best of its workers.")
    why: str
    models: list[str]
    load_time_s: float
    memory_usage_bytes: int
    last_request: float | None = Field(description="Unix seconds.")
    total_requests: int
    texts_per_s: float
    latency_ms: Latency
    queue_time_ms: float | None
    batch_efficiency: float | None = Field(description="Tokens read over tokens computed, padding included.")
    error_rate: float | None = Field(description="Of the texts that reached this pool.")
    cache_hit_rate: float | None = Field(description="Of the texts that reached this pool, as parts of jobs.")
    gpu_utilization: float | None = Field(description="0 to 1, where the driver tells.")
    workers: list[PoolWorker]
