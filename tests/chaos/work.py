"""The work of a round: jobs of several kinds and a batch, each compared with rows that are computed outside semel."""

import csv
import io
import json
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from typing_extensions import override

from semel.backends.fake import FakeBackend, FakeOptions
from semel.client import Client
from semel.errors import SemelError
from semel.values.text import Input, Pair

T = TypeVar("T")

MARK = {"campaign": "yes"}
"""Metadata of the jobs that a user of the campaign may cancel; the jobs of a batch have none."""

POISON, KILLER, HANGER = "poison", "killer", "hanger"
"""Words that fail their text, kill the process of their worker, and hang its device."""

TOML = f"""
default_model = "fake"
[models.fake]
source = "fake:?dim=16&text_ms=1&fail_on={POISON}&kill_on={KILLER}&hang_on={HANGER}&journal={{journal}}"
[models.reranker]
source = "fake:?text_ms=1&fail_on={POISON}&kill_on={KILLER}&journal={{journal}}"
kind = "cross-encoder"
"""

_REFERENCES = {
    "fake": FakeBackend("reference", FakeOptions(dim=16), device="cpu"),
    "reranker": FakeBackend("reference", FakeOptions(), device="cpu", kind="cross-encoder"),
}


def ids_of(text: Input) -> str:
    """A text as the journal of the fake models has it."""
    return str(_REFERENCES["fake"].tokenize([text])[0].ids)


def samples() -> set[str]:
    """The texts of the health checks, which each start of a worker computes, as the journal has them."""
    return {ids_of(text) for reference in _REFERENCES.values() for text in reference.samples()}


def wrong_rows(texts: Sequence[Input], rows: Any, model: str = "fake") -> list[str]:
    """A problem if a row is not that of its text.

    Args:
        texts: the n texts.
        rows: their vectors or scores, (n, dim).
    """
    if not texts:
        return []
    right = _REFERENCES[model].embed_texts(texts)
    found = np.array(rows, np.float32).reshape(len(texts), -1)
    wrong = ~np.isclose(found, right, atol=1e-6).all(axis=1)
    return [f"{wrong.sum()} wrong rows, the first is of {texts[int(wrong.argmax())]!r}"] if wrong.any() else []


def insist(call: Callable[[], T], *, for_s: float = 180) -> T:
    """What a client with a retry loop receives."""
    deadline = time.monotonic() + for_s
    while True:
        try:
            return call()
        except (SemelError, httpx.HTTPError) as error:
            if time.monotonic() > deadline:
                raise
            print(f"{time.strftime('%H:%M:%S')} a client tries again: {error!r}", file=sys.stderr)
            time.sleep(0.5)


class Work(ABC):
    """Texts that are submitted together, and what must become of each.

    Attributes:
        id: of the job or batch, once it is submitted.
        rows: how many rows were compared.
    """

    id = ""
    rows = 0

    def __init__(self, name: str, texts: list[str]) -> None:
        self._name = name
        self.texts = texts

    @abstractmethod
    def submit(self, client: Client) -> None:
        """Submit it, as often as needed."""

    @abstractmethod
    def has_ended(self, client: Client) -> bool:
        """Whether nothing more will happen to it. Raises SemelError."""

    @abstractmethod
    def problems(self, client: Client) -> list[str]:
        """What is wrong with its results; empty if each text has its row, and only bad ones have none."""

    def state(self, client: Client) -> str:
        """Its state in words."""
        job = client.job(self.id)
        return f"{job.status}, {job.counts}, {job.error}"

    def _bad(self) -> dict[int, str]:
        """The indices of the bad texts, with the code of their error; "" for any."""
        lost = (KILLER, HANGER)
        return {
            i: "worker_lost" if any(word in text for word in lost) else ""
            for i, text in enumerate(self.texts)
            if any(word in text for word in (POISON, *lost))
        }

    def _wrong_errors(self, failed: Mapping[int, str]) -> list[str]:
        bad = self._bad()
        if failed.keys() == bad.keys() and all(code in ("", failed[i]) for i, code in bad.items()):
            return []
        return [f"{self.id}: failed {dict(failed)}, but {bad} are bad"]


class Job(Work):
    """A job of texts, sent as lines of JSON."""

    model = "fake"

    @override
    def submit(self, client: Client) -> None:
        send = {"model": self.model, "idempotency_key": self._name, "metadata": MARK}
        self.id = insist(lambda: client.submit(self._items(), **send)).id  # type: ignore[arg-type]

    @override
    def has_ended(self, client: Client) -> bool:
        return client.job(self.id).status.ended

    @override
    def problems(self, client: Client) -> list[str]:
        job = insist(lambda: client.job(self.id))
        if (job.status, job.counts.done) != ("completed", len(self.texts)):
            return [f"{self.id} ended as {job.status} with {job.counts}: {job.error}"]
        rows = [json.loads(line) for line in insist(lambda: self._content(client)).decode().splitlines()]
        if [row["index"] for row in rows] != list(range(len(self.texts))):
            return [f"{self.id} has {len(rows)} rows in another order"]
        failed = {i: row["error"]["code"] for i, row in enumerate(rows) if row.get("error")}
        good = [i for i in range(len(rows)) if i not in failed]
        self.rows = len(good)
        inputs = self._inputs()
        values = [self._value(rows[i]) for i in good]
        wrong = wrong_rows([inputs[i] for i in good], values, self.model)
        return [*self._wrong_errors(failed), *wrong, *self._wrong_fields(rows)]

    def _content(self, client: Client) -> bytes:
        with client.results_stream(self.id, fmt="ndjson") as parts:
            return b"".join(parts)

    def _items(self) -> list[Any]:
        return self.texts

    def _inputs(self) -> Sequence[Input]:
        return self.texts

    def _value(self, row: Mapping[str, Any]) -> Any:
        return row["embedding"]

    def _wrong_fields(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What is wrong with the ids and columns of a file's rows."""
        return []


class TableJob(Job):
    """A job of a CSV file with an id and a column of its own."""

    @override
    def submit(self, client: Client) -> None:
        file = io.StringIO()
        csv.writer(file).writerows([("id", "topic", "text"), *self._cells()])
        headers = {"content-type": "text/csv", "idempotency-key": self._name}

        def post() -> str:
            answer = httpx.post(
                f"{client.url}/v1/jobs",
                params={"metadata": json.dumps(MARK)},
                content=file.getvalue(),
                headers=headers,
                timeout=60,
            )
            return str(answer.raise_for_status().json()["id"])

        self.id = insist(post)

    def _cells(self) -> list[tuple[str, str, str]]:
        return [(f"row {i}", f"topic {i % 7}", text) for i, text in enumerate(self.texts)]

    @override
    def _wrong_fields(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        expected = [(name, {"topic": topic}) for name, topic, _ in self._cells()]
        if [(row.get("id"), row.get("metadata")) for row in rows] == expected:
            return []
        return [f"{self.id} has ids or columns of other rows"]


class PairJob(Job):
    """A job of pairs of a query and a document for a cross-encoder."""

    model = "reranker"

    @override
    def _inputs(self) -> Sequence[Input]:
        return [Pair(f"{self._name.split()[0]} shared", text) for text in self.texts]

    @override
    def _items(self) -> list[Any]:
        return [{"query": pair.query, "document": pair.document} for pair in self._inputs() if isinstance(pair, Pair)]

    @override
    def _value(self, row: Mapping[str, Any]) -> Any:
        return row["score"]


class BatchWork(Work):
    """An OpenAI batch with a text on each line."""

    def __init__(self, name: str, texts: list[str], folder: Path) -> None:
        super().__init__(name, texts)
        self._file = folder / f"{name}.jsonl"

    @override
    def submit(self, client: Client) -> None:
        bodies = [{"model": "fake", "input": text} for text in self.texts]
        lines = [
            json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/embeddings", "body": body})
            for i, body in enumerate(bodies)
        ]
        self._file.write_text("\n".join(lines))
        file_id = insist(lambda: client.upload(self._file))
        self.id = insist(lambda: client.submit_batch(file_id)).id

    @override
    def has_ended(self, client: Client) -> bool:
        return client.batch(self.id).status.ended

    @override
    def state(self, client: Client) -> str:
        return str(client.batch(self.id))

    @override
    def problems(self, client: Client) -> list[str]:
        batch = insist(lambda: client.batch(self.id))
        if batch.status != "completed":
            return [f"{self.id} ended as {batch}"]
        answers = self._records(client, batch.output_file_id)
        failed = dict.fromkeys(self._records(client, batch.error_file_id), "")
        bad = self._bad()
        good = [i for i in range(len(self.texts)) if i not in bad]
        if list(answers) != good or failed.keys() != bad.keys():
            return [f"{self.id} has {len(answers)} answers and the errors {list(failed)}, but {bad} are bad"]
        self.rows = len(good)
        rows = [answers[i]["response"]["body"]["data"][0]["embedding"] for i in good]
        return wrong_rows([self.texts[i] for i in good], rows)

    def _records(self, client: Client, file_id: str | None) -> dict[int, Any]:
        if file_id is None:
            return {}
        insist(lambda: client.download(file_id, self._file))
        records = [json.loads(line) for line in self._file.read_text().splitlines()]
        return {int(record["custom_id"]): record for record in records}


def work_of_a_round(rng: random.Random, seed: int, texts: int, folder: Path) -> list[Work]:
    """Two jobs that share a tenth of their texts, one of them of any kind, and in every third round a batch."""
    work: list[Work] = [Job(f"{seed} job 0", _texts(rng, f"{seed} job 0", texts))]
    kind = rng.choice((Job, Job, TableJob, PairJob))
    work.append(kind(f"{seed} job 1", _texts(rng, f"{seed} job 1", texts)))
    if rng.random() < 1 / 3:
        work.append(BatchWork(f"{seed} batch", _texts(rng, f"{seed} batch", 300, killers=False), folder))
    if rng.random() < 1 / 30:
        hung = work[0].texts
        hung[rng.randrange(texts)] = f"{seed} job 0 {HANGER} text"
    return work


def _texts(rng: random.Random, name: str, count: int, *, killers: bool = True) -> list[str]:
    texts = [f"{name} shared {i}" if i % 10 else f"{name[:-1]}x shared {i}" for i in range(count)]
    texts[rng.randrange(count)] = f"{name} {POISON} text"
    if killers and rng.random() < 0.3:
        texts[rng.randrange(count)] = f"{name} {KILLER} text"
    return texts
