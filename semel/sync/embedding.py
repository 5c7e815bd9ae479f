"""Where the vectors of a sync come from: this process, or a server."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from semel.backends.models.digests import Digests
from semel.backends.models.source import ModelSource, find_model
from semel.cache.catalog import prompt_for
from semel.client import Client
from semel.errors import BadInputError, SemelError
from semel.local import Local
from semel.settings import Settings
from semel.values.job import JobStatus
from semel.values.model import for_device
from semel.values.result_columns import ResultColumns
from semel.values.text import Lane, Outcome
from semel.values.vectors import Vectors


@dataclass(frozen=True)
class Embedded:
    """Vectors of some texts.

    Attributes:
        vectors: float32 (n, dim); the row of a failed text must not be read.
        errors: position → why that text has no vector.
        computed: texts that were not in the cache.
    """

    vectors: Vectors
    errors: dict[int, str]
    computed: int


@dataclass(frozen=True)
class Forecast:
    """What embedding some texts would take.

    Attributes:
        hits: distinct texts in the cache.
        to_compute: distinct texts that are not.
        seconds: to compute them; None if the rate is not known.
    """

    hits: int
    to_compute: int
    seconds: float | None = None


class Embedding(Protocol):
    """A model that documents are embedded with.

    Attributes:
        model: its name.
        fingerprint, key_base: of the vector space of documents.
        dim: numbers in a vector.
        batch_chunks: how many chunks are embedded at a time.
        batches_under_way: how many batches of them, so that the device never waits; all are in memory.
    """

    model: str
    fingerprint: bytes
    key_base: bytes
    dim: int
    batch_chunks: int
    batches_under_way: int

    def forecast(self) -> "Forecasting":
        """Begin to count what embedding would take."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors in order. A text that would be cut is an error of that text. Raises SemelError for all others."""
        ...

    def question(self, text: str) -> Vectors:
        """The vector of a question, float32 (dim,). Raises SemelError."""
        ...

    def rerank(self, model: str, question: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """Position and score of each text, the best first. Raises SemelError."""
        ...


class Forecasting(Protocol):
    """Counts texts in parts."""

    def add(self, keys: Sequence[bytes], texts: Sequence[str]) -> None:
        """Count a part."""
        ...

    def end(self) -> Forecast:
        """The sum."""
        ...


def model_source(settings: Settings, name: str) -> ModelSource:
    """A model's files on this machine, whose tokenizer splits documents. Raises UnknownModelError, ModelLoadError."""
    digests = Digests(settings.home / "digests.json")
    device = name.partition("@")[2]
    entries = for_device(settings.all_models, device) if device else settings.all_models
    return find_model(name, entries, models_dir=settings.models_dir, digests=digests)


class LocalEmbedding:
    """Embeds in this process; see `Embedding`.

    Args:
        here: the pipeline of this process.
        model: a name from semel.toml.
    """

    batch_chunks = 1024
    batches_under_way = 6

    def __init__(self, here: Local, model: str) -> None:
        self._here = here
        self._space = here.space(model, "", "document")
        self._space.check_kind("embed")
        self.model = self._space.model
        self.fingerprint, self.key_base, self.dim = self._space.fingerprint, self._space.key_base, self._space.dim

    def forecast(self) -> "Forecasting":
        """See `Embedding`."""
        return _LocalForecast(self._here)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedding`."""
        done = self._here.pipeline.embed(self._space, texts, lane=Lane.BULK, truncate=False)
        errors = {i: error.message for i, error in done.errors.items()}
        return Embedded(done.vectors, errors, done.count(Outcome.COMPUTED))

    def question(self, text: str) -> Vectors:
        """See `Embedding`."""
        return self._here.embed([text], model=self.model, input_type="query")[0]  # type: ignore[no-any-return]

    def rerank(self, model: str, question: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """See `Embedding`."""
        return [(each.index, each.score) for each in self._here.rerank(question, list(texts), model=model)]


@dataclass
class _LocalForecast:
    here: Local
    hits: int = 0
    _missing: set[bytes] = field(default_factory=set)

    def add(self, keys: Sequence[bytes], texts: Sequence[str]) -> None:  # noqa: ARG002  # a server needs the texts
        distinct = list(dict.fromkeys(keys))
        present = self.here.store.present(distinct)
        self.hits += len(present)
        self._missing.update(key[:8] for key in distinct if key not in present)  # their number is all that counts

    def end(self) -> Forecast:
        return Forecast(self.hits, len(self._missing))


class RemoteEmbedding:
    """Embeds on a server, by jobs that its page shows; see `Embedding`.

    Args:
        client: of the server.
        model: a name that it serves; None for its default.
        label: the name of the sync, in the metadata of the jobs.

    Raises:
        BadInputError: the server does not serve such a model.
    """

    batch_chunks = 8192
    batches_under_way = 2

    def __init__(self, client: Client, model: str | None, *, label: str) -> None:
        served = client.models()
        found = next((each for each in served if each.id == model or (model is None and each.default)), None)
        if found is None:
            known = ", ".join(each.id for each in served) or "none yet"
            raise BadInputError(f"the server serves no model {model or '(its default)'!r} (it serves: {known})")
        if found.kind != "embed":
            raise BadInputError(f"model {found.id!r} is of kind {found.kind}; an index needs one that computes vectors")
        self._client = client
        self._label = label
        self.model, self.dim = found.id, found.dimensions
        prompt = prompt_for("document", found.prompts)
        self.fingerprint = bytes.fromhex(found.fingerprints.get(prompt, found.fingerprint))
        self.key_base = self.fingerprint

    def forecast(self) -> "Forecasting":
        """See `Embedding`."""
        return _RemoteForecast(self._client, self.model)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """See `Embedding`."""
        job = self._client.submit(
            texts, model=self.model, input_type="document", truncate=False, metadata={"sync": self._label}
        ).wait()
        if job.status is not JobStatus.COMPLETED:
            raise SemelError(f"job {job.id} ended as {job.status}: {job.error.message if job.error else 'no reason'}")
        table: Any = self._client.to_arrow(job)
        columns = ResultColumns(job.kind, job.dimensions)
        rows = [columns.rows(batch) for batch in table.to_batches()]
        errors = {i: str(error) for i, error in enumerate(table["error"].to_pylist()) if error is not None}
        return Embedded(np.concatenate(rows), errors, job.counts.computed)

    def question(self, text: str) -> Vectors:
        """See `Embedding`."""
        return self._client.embed([text], model=self.model, input_type="query")[0]  # type: ignore[no-any-return]

    def rerank(self, model: str, question: str, texts: Sequence[str]) -> list[tuple[int, float]]:
        """See `Embedding`."""
        return [(each.index, each.score) for each in self._client.rerank(question, list(texts), model=model)]


@dataclass
class _RemoteForecast:
    client: Client
    model: str
    hits: int = 0
    to_compute: int = 0
    seconds: float | None = 0.0

    def add(self, keys: Sequence[bytes], texts: Sequence[str]) -> None:  # noqa: ARG002  # the server makes the keys
        if texts:
            part = self.client.estimate(texts, model=self.model, input_type="document")
            self.hits += part.distinct - part.to_compute
            self.to_compute += part.to_compute
            known = self.seconds is not None and part.compute_s is not None
            self.seconds = (self.seconds or 0.0) + (part.compute_s or 0.0) if known else None

    def end(self) -> Forecast:
        return Forecast(self.hits, self.to_compute, self.seconds)
