"""The client and the real API, in one process: what the one sends, the other takes, and the reverse."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from semel.client import Client
from semel.errors import BadInputError, ConflictError, InvalidTextError, NotFoundError, UnknownModelError
from semel.values.job import JobStatus
from tests.support.remote import client_of_api
from tests.support.service import Service, service


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API with one worker on a fake model. Tests share it: each uses texts of its own."""
    with service(tmp_path_factory.mktemp("client")) as running:
        yield running


@pytest.fixture(scope="module")
def live(api: Service) -> Iterator[Client]:
    with client_of_api(api.http) as client:
        yield client


def test_vectors_come_in_the_order_of_the_texts(live: Client) -> None:
    answer = live.embed(["order one", "order two", "order one"])
    assert (answer.shape, answer.dtype) == ((3, 16), np.float32)
    np.testing.assert_array_equal(answer[0], answer[2])
    np.testing.assert_array_equal(live.embed(["order two"])[0], answer[1])


def test_the_prompt_for_queries_is_used(live: Client) -> None:
    query = live.embed(["cat"], model="prompted", input_type="query")
    np.testing.assert_array_equal(query, live.embed(["find cat"], model="prompted"))


def test_refusals_of_embed_are_of_their_class(live: Client) -> None:
    with pytest.raises(UnknownModelError, match="there is no model named 'nothing'"):
        live.embed(["x"], model="nothing")
    with pytest.raises(InvalidTextError) as raised:
        live.embed(["fine", ""])
    assert raised.value.index == 1
    with pytest.raises(BadInputError, match=r"cannot be cut to 7 dimensions \(it offers 16\)"):
        live.embed(["x"], dimensions=7)
    with pytest.raises(BadInputError, match="fails on 'poison'"):
        live.embed(["fine", "poison"])


def test_documents_are_ranked_and_refusals_have_their_class(live: Client) -> None:
    ranked = live.rerank("red fox", ["a dog", "the red fox", "a fox"], model="reranker", top_n=2)
    assert [(r.index, r.score) for r in ranked] == [(1, 1.0), (2, 0.5)]
    with pytest.raises(UnknownModelError, match="there is no model named 'nothing'"):
        live.rerank("q", ["a"], model="nothing")
    with pytest.raises(BadInputError, match="document 1 cannot be scored"):
        live.rerank("q", ["a", "poison"], model="reranker")


def test_a_job_goes_from_submission_to_its_vectors(live: Client) -> None:
    texts = [f"of a job {i}" for i in range(50)]
    job = live.wait(live.submit(texts, metadata={"who": "me"}).id, timeout_s=5)
    assert (job.status, job.total, job.counts.computed) == (JobStatus.COMPLETED, 50, 50)
    assert (job.model, job.dimensions, job.metadata) == ("fake", 16, {"who": "me"})
    vectors = live.results(job.id)
    np.testing.assert_array_equal(vectors, live.embed(texts))
    np.testing.assert_array_equal(live.embed_corpus(texts, show_progress=False), vectors)


def test_the_same_key_returns_the_same_job(live: Client) -> None:
    first = live.submit(["sent twice"], idempotency_key="the same")
    assert live.submit(["sent twice"], idempotency_key="the same").id == first.id
    with pytest.raises(ConflictError):
        live.submit(["another text"], idempotency_key="the same")


def test_results_come_in_every_format_and_from_any_position(live: Client) -> None:
    job = live.submit([{"text": f"of a row {i}", "id": f"row-{i}", "tag": i} for i in range(5)])

    def read(fmt: str, **part: int) -> bytes:
        with live.results_stream(job.id, fmt=fmt, **part) as parts:
            return b"".join(parts)

    lines = [json.loads(line) for line in read("ndjson", offset=1, limit=2).splitlines()]
    assert [(line["index"], line["id"], line["metadata"]) for line in lines] == [
        (1, "row-1", {"tag": 1}), (2, "row-2", {"tag": 2}),
    ]  # fmt: skip
    vectors = live.results(job.id)
    np.testing.assert_array_equal(np.load(io.BytesIO(read("npy", offset=3))), vectors[3:])
    assert pq.read_table(io.BytesIO(read("parquet"))).num_rows == 5


def test_failed_texts_make_the_vectors_incomplete_and_the_lines_tell_which(live: Client) -> None:
    job = live.submit(["a good one", "poison"])
    with pytest.raises(ConflictError):
        live.results(job.id)
    with live.results_stream(job.id, fmt="ndjson") as parts:
        good, bad = (json.loads(line) for line in b"".join(parts).splitlines())
    assert "embedding" in good
    assert bad["error"]["code"] == "backend_error"


def test_the_events_of_an_ended_job_are_its_end(live: Client) -> None:
    job = live.submit(["with events"], metadata={"note": "a\u2028b"})
    (event,) = live.events(job.id)
    assert (event.job.status, event.eta_s, event.job.metadata) == (JobStatus.COMPLETED, 0.0, {"note": "a\u2028b"})


def test_jobs_are_listed_retried_and_deleted(live: Client) -> None:
    live.submit(["an older job"])
    job = live.submit(["listed", "poison"], metadata={"name": "listed"})
    assert live.jobs(limit=1)[0].id == job.id
    assert live.jobs(limit=1, after=job.id)[0].id != job.id
    assert live.retry(job.id).id == job.id
    with pytest.raises(ConflictError):
        live.cancel(live.wait(job.id, timeout_s=5).id)
    live.delete(job.id)
    with pytest.raises(NotFoundError, match=job.id):
        live.job(job.id)
    for call in (live.cancel, live.retry, live.delete, live.results):
        with pytest.raises(NotFoundError):
            call(job.id)


def test_a_bad_row_of_a_job_is_refused(live: Client) -> None:
    with pytest.raises(BadInputError, match="nonsense"):
        live.submit([{"nonsense": 1}], text_field="nonsense")


def test_a_batch_goes_from_its_file_to_its_answers(live: Client, tmp_path: Path) -> None:
    lines = [
        {"custom_id": f"c{i}", "method": "POST", "url": "/v1/embeddings", "body": {"model": "fake", "input": text}}
        for i, text in enumerate(["of a batch", "poison"])
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    file_id = live.upload(tmp_path / "in.jsonl")
    live.download(file_id, tmp_path / "copy.jsonl")
    assert (tmp_path / "copy.jsonl").read_bytes() == (tmp_path / "in.jsonl").read_bytes()
    batch = live.submit_batch(file_id, metadata={"a": "b"})
    assert (batch.input_file_id, live.batch(batch.id).id) == (file_id, batch.id)
    with pytest.raises(NotFoundError):
        live.submit_batch("file_nothing")
    with pytest.raises(ConflictError):
        live.delete_file(file_id)
    assert live.cancel_batch(batch.id).status in (JobStatus.CANCELLING, JobStatus.CANCELLED)


def test_models_and_readiness(live: Client) -> None:
    models = {model.id: model for model in live.models()}
    assert {"fake", "prompted", "reranker"} <= models.keys()
    assert models["prompted"].prompts == ["document", "query"]
    assert (models["fake"].dimensions, models["fake"].live) == (16, True)
    assert set(live.ready().values()) == {"ok"}


def test_imported_vectors_are_compared_by_the_worker(live: Client) -> None:
    texts = [f"imported {i}" for i in range(6)]
    right = live.embed([f"find {text}" for text in texts], model="prompted")
    stored, present = live.put_vectors(zip(texts, right, strict=True), model="prompted", prompt_name="query")
    assert stored + present == 6
    with pytest.raises(BadInputError, match="differs from the one that 'prompted' computes here"):
        live.put_vectors([("imported wrongly", right[0])], model="prompted", prompt_name="query")


def test_a_job_waits_and_returns_its_own_results(live: Client) -> None:
    job = live.submit(["method one", "method two"])
    assert job.wait().results().tolist() == live.embed(["method one", "method two"]).tolist()
    assert live.results(job).tolist() == live.results(job.id).tolist()
    assert live.jobs(after=job) == live.jobs(after=job.id)


def test_results_come_back_as_a_table_with_the_columns_of_the_rows(live: Client) -> None:
    rows = [{"id": "a", "text": "tabled", "page": 3}, {"id": "b", "text": "", "tags": ["x"]}]
    job = live.submit(rows).wait()
    table = job.to_arrow()
    assert table.column_names == ["index", "id", "page", "tags", "embedding", "outcome", "truncated", "error"]
    assert table.column("page").to_pylist() == [3, None]
    assert table.column("tags").to_pylist() == [None, ["x"]]
    first, second = table.column("embedding").to_pylist()
    assert (first, second) == (live.embed(["tabled"])[0].tolist(), None)
    assert list(job.to_pandas()["id"]) == ["a", "b"]


def test_a_job_of_pairs_comes_back_as_a_table_of_scores(live: Client) -> None:
    pairs = [{"query": "a b", "document": "a b"}, {"query": "a b", "document": "a"}]
    table = live.submit(pairs, model="reranker").wait().to_arrow()
    assert table.column("score").to_pylist() == [1.0, 0.5]


def test_an_estimate_stores_nothing(live: Client) -> None:
    before = len(live.jobs(limit=100))
    estimate = live.estimate(["never seen before", "never seen before", ""])
    assert (estimate.texts, estimate.to_compute, estimate.failed) == (3, 1, 1)
    assert len(live.jobs(limit=100)) == before


def test_many_texts_are_embedded_in_one_call(live: Client) -> None:
    texts = [f"many {i}" for i in range(2500)]
    rows = live.embed(texts)
    assert rows.shape == (2500, 16)
    np.testing.assert_array_equal(rows[2400], live.embed([texts[2400]])[0])


def test_texts_are_read_in_a_variant(live: Client) -> None:
    np.testing.assert_array_equal(live.embed(["v1 v2 v3"], max_tokens=2), live.embed(["v1 v2"]))
    cut = live.embed(["v1 v2 v3"], max_tokens=2, truncate_side="left")
    np.testing.assert_array_equal(cut, live.embed(["v2 v3"]))
    assert np.linalg.norm(live.embed(["v1"], normalize=False)) > 2
    job = live.submit(["v1 v2 v3"], max_tokens=2).wait()
    np.testing.assert_array_equal(job.results(), live.embed(["v1 v2"]))
