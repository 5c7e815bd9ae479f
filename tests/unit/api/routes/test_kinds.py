"""Classifiers and sparse models: their routes, jobs and batches, and what other routes say of them."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semel.values.model import ModelEntry
from tests.support.answers import message_of
from tests.support.service import Service, service

LABELS = ["LABEL_0", "LABEL_1", "LABEL_2"]
MODELS = {
    "fake": ModelEntry("fake:?dim=16&max_tokens=20&fail_on=poison"),
    "labels": ModelEntry("fake:?dim=3&activation=Softmax&max_tokens=20&fail_on=poison", kind="classifier"),
    "sparse": ModelEntry("fake:?max_tokens=20&fail_on=poison", kind="sparse", prompts={"query": "find "}),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API whose default model embeds, with one classifier and one sparse model next to it."""
    with service(tmp_path_factory.mktemp("kinds"), models=MODELS) as running:
        yield running


def post(api: Service, path: str, **body: Any) -> Any:
    answer = api.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def weights(row: list[dict[str, float]]) -> dict[float, float]:
    return {entry["index"]: entry["value"] for entry in row}


# Sparse vectors


def test_sparse_vectors_are_entries_in_the_order_of_their_indices(api: Service) -> None:
    rows = post(api, "/embed_sparse", inputs=["one two two", "three", "one two two"])
    assert rows[0] == rows[2] != rows[1]
    assert sorted(weights(rows[0]).values()) == pytest.approx([np.log(2), np.log(3)])
    indices = [entry["index"] for entry in rows[0]]
    assert indices == sorted(indices)
    assert post(api, "/embed_sparse", inputs="three") == [rows[1]]


def test_a_sparse_vector_is_computed_once(api: Service) -> None:
    seen = [api.http.post("/embed_sparse", json={"inputs": ["seen before"]}).headers["x-semel-cache"] for _ in range(2)]
    assert [each.split(";")[0] for each in seen] == ["hits=0", "hits=1"]


def test_sparse_vectors_have_prompts_and_limits(api: Service) -> None:
    assert post(api, "/embed_sparse", inputs="it", prompt_name="query") == post(api, "/embed_sparse", inputs="find it")
    long = "a b " * 30
    assert api.http.post("/embed_sparse", json={"inputs": long}).status_code == 422
    (cut,) = post(api, "/embed_sparse", inputs=long, truncate=True)
    assert sum(np.exp(list(weights(cut).values())) - 1) == pytest.approx(20, abs=1e-3)


# Labels


def test_predictions_are_sorted_by_score_and_sum_to_one(api: Service) -> None:
    (row,) = post(api, "/predict", inputs=[["a text"]])
    assert sorted(each["label"] for each in row) == LABELS
    scores = [each["score"] for each in row]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("single", ["a text", ["a text"]])
def test_one_text_is_answered_without_a_list(api: Service, single: Any) -> None:
    assert post(api, "/predict", inputs=single) == post(api, "/predict", inputs=[["a text"]])[0]


def test_a_pair_is_not_its_texts(api: Service) -> None:
    pair, joined = post(api, "/predict", inputs=["a b", "c"]), post(api, "/predict", inputs=[["a b", "c"], ["a b c"]])
    assert pair == joined[0]
    one, other = (post(api, "/predict", inputs=[["a", "b c"]]), post(api, "/predict", inputs=[["a b", "c"]]))
    assert api.http.post("/predict", json={"inputs": [["a", "b c"]]}).headers["x-semel-cache"].startswith("hits=1")
    assert (len(one), len(other)) == (1, 1)


def test_logits_and_scores_come_from_one_row(api: Service) -> None:
    logits = {each["label"]: each["score"] for each in post(api, "/predict", inputs="for both", raw_scores=True)}
    answer = api.http.post("/predict", json={"inputs": "for both"})
    assert answer.headers["x-semel-cache"].startswith("hits=1")
    powers = {label: np.exp(logit) for label, logit in logits.items()}
    scores = {each["label"]: each["score"] for each in answer.json()}
    assert scores == pytest.approx({label: power / sum(powers.values()) for label, power in powers.items()}, abs=1e-6)


@pytest.mark.parametrize(
    "inputs", [[["a", "b", "c"]], [[]], [], [["a"], "b", 5], {"a": 1}, [[1, 2]], [["a", 2]]], ids=str
)
def test_other_shapes_of_inputs_are_refused(api: Service, inputs: Any) -> None:
    assert api.http.post("/predict", json={"inputs": inputs}).status_code in (400, 422)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([["fine"], ["w " * 5_000_000]], "text 1 is longer than"),
        ([["fine"], []], "inputs[1] must be a text"),
        ([["fine"], ["a", "b", "c"]], "inputs[1] must be a text"),
    ],
    ids=["long", "empty", "three"],
)
def test_an_entry_that_cannot_be_used_is_named_by_its_place(api: Service, entries: Any, message: str) -> None:
    answer = api.http.post("/predict", json={"inputs": entries})
    assert answer.status_code in (413, 422)
    if answer.status_code == 422:
        assert message in message_of(answer)


def test_classify_has_the_best_label_and_the_scores_of_all(api: Service) -> None:
    answer = post(api, "/classify", input=["one", "two"], model="labels")
    assert (answer["model"], answer["labels"], [each["index"] for each in answer["data"]]) == ("labels", LABELS, [0, 1])
    for text, each in zip(["one", "two"], answer["data"], strict=True):
        expected = post(api, "/predict", inputs=text)
        assert each["label"] == expected[0]["label"]
        scores = {one["label"]: one["score"] for one in expected}
        assert dict(zip(LABELS, each["probs"], strict=True)) == pytest.approx(scores)
        assert each["num_classes"] == 3
    assert answer["usage"]["prompt_tokens"] == 2
    raw = post(api, "/classify", input="one", use_activation=False)["data"][0]["probs"]
    assert sum(raw) != pytest.approx(1, abs=1e-3)


def test_a_bad_text_is_named(api: Service) -> None:
    answer = api.http.post("/classify", json={"input": ["good", "poison"]})
    assert (answer.status_code, "text 1 has no vector" in message_of(answer)) == (400, True)


# The right place for each


@pytest.mark.parametrize(
    ("path", "body", "advice"),
    [
        ("/v1/embeddings", {"model": "labels", "input": "x"}, "is a classifier: .*send texts to /classify or /predict"),
        ("/v1/embeddings", {"model": "sparse", "input": "x"}, "computes sparse vectors; send texts to /embed_sparse"),
        ("/v1/rerank", {"model": "sparse", "query": "x", "documents": ["y"]}, "computes sparse vectors; send texts to"),
        ("/v1/rerank", {"model": "labels", "query": "x", "documents": ["y"]}, "is a classifier: it scores labels"),
        ("/v2/embed", {"model": "sparse", "texts": ["x"], "input_type": "clustering"}, "computes sparse vectors"),
        ("/embed_sparse", {"model": "fake", "inputs": "x"}, "computes vectors; send texts to /v1/embeddings"),
        ("/predict", {"model": "sparse", "inputs": "x"}, "computes sparse vectors; send texts to /embed_sparse"),
        ("/score", {"model": "labels", "text_1": "x", "text_2": "y"}, "is a classifier"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_of_another_kind_names_the_right_place(
    api: Service, path: str, body: dict[str, Any], advice: str
) -> None:
    answer = api.http.post(path, json=body)
    assert answer.status_code in (400, 422)
    with pytest.raises(AssertionError, match=advice):
        raise AssertionError(message_of(answer))


def test_vectors_cannot_be_imported_into_a_sparse_space(api: Service) -> None:
    answer = api.http.put("/v1/cache/vectors?model=sparse", json={"text": "x", "embedding": [1.0]})
    assert answer.status_code == 400


def test_models_are_listed_with_their_kinds(api: Service) -> None:
    listed = {model["id"]: (model["kind"], model["dimensions"]) for model in api.http.get("/v1/models").json()["data"]}
    assert listed == {
        "minilm": ("embed", 384),
        "fake": ("embed", 16),
        "labels": ("classifier", 3),
        "sparse": ("sparse", 0),
    }


@pytest.mark.parametrize(
    ("kind", "body", "path", "described"),
    [
        ("classifier", {"inputs": "x"}, "/predict", "classifier"),
        ("sparse", {"inputs": ["x"]}, "/embed_sparse", "embedding"),
    ],
)
def test_the_root_does_what_the_default_model_does(
    tmp_path: Path, kind: Any, body: dict[str, Any], path: str, described: str
) -> None:
    with service(tmp_path, models={"fake": ModelEntry("fake:?dim=3&activation=Softmax", kind=kind)}) as running:
        assert running.http.post("/", json=body).json() == running.http.post(path, json=body).json()
        assert list(running.http.get("/info").json()["model_type"]) == [described]


def test_several_models_of_a_kind_must_be_named(tmp_path: Path) -> None:
    two = {**MODELS, "other": ModelEntry("fake:?weights=b", kind="sparse")}
    with service(tmp_path, models=two) as running:
        refused = running.http.post("/embed_sparse", json={"inputs": "x"})
        assert "name one of the models of kind 'sparse': other, sparse" in message_of(refused)
        assert running.http.post("/embed_sparse", json={"inputs": "x", "model": "other"}).status_code == 200


def test_a_model_with_a_source_of_its_own_on_a_device_is_one_model(tmp_path: Path) -> None:
    own = {"fake": MODELS["fake"], "sparse": ModelEntry("fake:", kind="sparse", source_cpu="fake:?weights=b")}
    with service(tmp_path, models=own) as running:
        assert running.http.post("/embed_sparse", json={"inputs": "x"}).status_code == 200


def test_a_model_that_is_gone_does_not_make_the_live_one_ambiguous(tmp_path: Path) -> None:
    with service(tmp_path, models=MODELS) as running:
        catalog = running.services.stores.catalog
        gone = replace(catalog.space("sparse"), model="gone", fingerprint=b"g" * 32)
        catalog.publish([gone], device="cpu")
        assert running.http.post("/embed_sparse", json={"inputs": "x"}).status_code == 422, "both are live"
        catalog.retire([gone])
        catalog._seen.forget()
        assert running.http.post("/embed_sparse", json={"inputs": "x"}).status_code == 200


def test_without_a_model_of_the_kind_the_default_is_named(tmp_path: Path) -> None:
    with service(tmp_path, models={"fake": MODELS["fake"]}) as running:
        assert "computes vectors; send" in message_of(running.http.post("/embed_sparse", json={"inputs": "x"}))


# Jobs and batches

ROWS: list[Any] = ["one two two", "poison", {"id": 7, "text": "three", "page": 3}]


def results(api: Service, model: str, fmt: str, rows: list[Any]) -> bytes:
    job = post_job(api, model, rows)
    answer = api.http.get(f"/v1/jobs/{job['id']}/results", params={"format": fmt})
    assert answer.status_code == 200, answer.text
    return answer.content


def post_job(api: Service, model: str, rows: list[Any]) -> dict[str, Any]:
    answer = api.http.post("/v1/jobs", json={"model": model, "input": rows})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = api.http.get(f"/v1/jobs/{answer.json()['id']}").json()
    assert job["status"] == "completed"
    return job


def test_a_job_of_sparse_vectors(api: Service) -> None:
    lines = [json.loads(line) for line in results(api, "sparse", "ndjson", ROWS).splitlines()]
    expected = post(api, "/embed_sparse", inputs=["one two two", "three"])
    found = [dict(zip(*line["sparse_embedding"].values(), strict=True)) for line in (lines[0], lines[2])]
    assert found == [pytest.approx(weights(row)) for row in expected]
    assert lines[1]["error"]["code"]
    assert "sparse_embedding" not in lines[1]
    assert lines[2]["metadata"] == {"page": 3}


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_sparse_vectors_in_columns(api: Service, fmt: str) -> None:
    data = results(api, "sparse", fmt, ROWS)
    table = pa.ipc.open_stream(data).read_all() if fmt == "arrow" else pq.read_table(io.BytesIO(data))
    column = table.column("sparse_embedding").to_pylist()
    expected = post(api, "/embed_sparse", inputs=["one two two"])[0]
    assert column[1] is None
    assert dict(zip(column[0]["indices"], column[0]["values"], strict=True)) == pytest.approx(weights(expected))


def test_sparse_vectors_are_no_matrix(api: Service) -> None:
    job = post_job(api, "sparse", ["x"])
    answer = api.http.get(f"/v1/jobs/{job['id']}/results", params={"format": "npy"})
    assert (answer.status_code, "npy cannot hold sparse vectors" in message_of(answer)) == (400, True)


def test_a_job_of_labels_takes_texts_and_pairs(api: Service) -> None:
    rows = [*ROWS, {"query": "a b", "document": "c"}]
    job = post_job(api, "labels", rows)
    assert (job["kind"], job["labels"], job["counts"]["failed"]) == ("classifier", LABELS, 1)
    data = api.http.get(f"/v1/jobs/{job['id']}/results").content
    lines = [json.loads(line) for line in data.splitlines()]
    for at, single in ((0, "one two two"), (3, ["a b", "c"])):
        expected = {each["label"]: each["score"] for each in post(api, "/predict", inputs=single)}
        assert lines[at]["scores"] == pytest.approx(expected)
        assert lines[at]["label"] == max(expected, key=expected.__getitem__)
    assert "label" not in lines[1]


@pytest.mark.parametrize("fmt", ["arrow", "parquet"])
def test_labels_in_columns(api: Service, fmt: str) -> None:
    data = results(api, "labels", fmt, ROWS)
    table = pa.ipc.open_stream(data).read_all() if fmt == "arrow" else pq.read_table(io.BytesIO(data))
    best = post(api, "/predict", inputs="three")[0]
    assert table.column("label").to_pylist()[1:] == [None, best["label"]]
    scores = table.column("scores").to_pylist()
    assert scores[1] is None
    assert max(scores[2]) == pytest.approx(best["score"])


def test_scores_of_labels_as_a_matrix(api: Service) -> None:
    matrix = np.load(io.BytesIO(results(api, "labels", "npy", ["one", "two"])))
    assert matrix.shape == (2, 3)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-6)


def test_an_estimate_does_not_know_the_size_of_sparse_vectors(api: Service) -> None:
    answer = post(api, "/v1/jobs/estimate", model="sparse", input=["never seen"])
    assert (answer["to_compute"], answer["disk_bytes"]) == (1, None)
