"""A real classifier and a real sparse model behind a running stack: the client, jobs, batches and the command line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SparseEncoder
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, pipeline

from semel.values.sparse import SparseVector
from semel.values.vectors import Vectors
from tests.support.processes import FAKE_TOML, Processes, processes, wait_until
from tests.support.tiny_models import PAIRS, SIZES, TEXTS, tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SPLADE model and a tiny classifier with random weights."""
    made = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("splade", "mood"):
        tokenizer(made / name)
    BertForMaskedLM(BertConfig(**SIZES)).save_pretrained(made / "splade")
    labels = {0: "good", 1: "bad", 2: "neither"}
    BertForSequenceClassification(BertConfig(**SIZES, id2label=labels)).save_pretrained(made / "mood")
    return made


@pytest.fixture(scope="module")
def semel(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Processes]:
    entries = f"""
[models.splade]
source = "{folder / "splade"}"
kind = "sparse"
precision = "float32"
[models.mood]
source = "{folder / "mood"}"
kind = "classifier"
"""
    with processes(tmp_path_factory.mktemp("kinds"), toml=FAKE_TOML + entries) as running:
        yield running


@pytest.fixture(scope="module")
def expected_sparse(folder: Path) -> Vectors:
    encoder = SparseEncoder(str(folder / "splade"), device="cpu")
    vectors: Vectors = encoder.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    return vectors


@pytest.fixture(scope="module")
def expected_labels(folder: Path) -> list[dict[str, float]]:
    classify = pipeline("text-classification", model=str(folder / "mood"), device="cpu", top_k=None)
    inputs = [*TEXTS, *({"text": pair.query, "text_pair": pair.document} for pair in PAIRS)]
    found = [classify(one, truncation=True, max_length=32) for one in inputs]
    flat = [each[0] if isinstance(each[0], list) else each for each in found]
    return [{one["label"]: one["score"] for one in each} for each in flat]


def check_sparse(rows: list[SparseVector], expected: Vectors) -> None:
    for row, dense in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row.indices, np.flatnonzero(dense > 1e-6))
        np.testing.assert_allclose(row.values, dense[row.indices], atol=1e-4)


def test_the_client_gets_the_vectors_of_the_library(semel: Processes, expected_sparse: Vectors) -> None:
    check_sparse(semel.client.embed_sparse(TEXTS, model="splade"), expected_sparse)


def test_the_client_gets_the_labels_of_the_library(semel: Processes, expected_labels: list[dict[str, float]]) -> None:
    found = semel.client.classify([*TEXTS, *((pair.query, pair.document) for pair in PAIRS)], model="mood")
    assert [each.scores for each in found] == [pytest.approx(one, abs=1e-4) for one in expected_labels]
    assert [each.label for each in found] == [max(one, key=one.__getitem__) for one in expected_labels]


def test_a_job_gives_the_same(
    semel: Processes, expected_sparse: Vectors, expected_labels: list[dict[str, float]]
) -> None:
    job = semel.client.submit([*TEXTS, *TEXTS], model="splade").wait(timeout_s=60)
    check_sparse(list(job.results()), np.concatenate([expected_sparse, expected_sparse]))
    rows = [{"text": text} for text in TEXTS] + [pair._asdict() for pair in PAIRS]
    job = semel.client.submit(rows, model="mood").wait(timeout_s=60)
    table = job.to_arrow()
    assert table.column("label").to_pylist() == [max(one, key=one.__getitem__) for one in expected_labels]
    matrix = [[one[label] for label in job.labels] for one in expected_labels]
    np.testing.assert_allclose(job.results(), matrix, atol=1e-4)


def test_batches_give_the_same(
    semel: Processes, expected_sparse: Vectors, expected_labels: list[dict[str, float]]
) -> None:
    bodies = {
        "/embed_sparse": {"model": "splade", "inputs": TEXTS, "truncate": True},
        "/classify": {"model": "mood", "input": TEXTS},
    }
    with openai.OpenAI(base_url=f"{semel.url}/v1", api_key="any") as client:
        answers = {path: _batch(client, path, body) for path, body in bodies.items()}
    rows = answers["/embed_sparse"]
    found = [
        SparseVector(np.array([e["index"] for e in row], np.uint32), np.array([e["value"] for e in row], np.float32))
        for row in rows
    ]
    check_sparse(found, expected_sparse)
    labelled = [each["label"] for each in answers["/classify"]["data"]]
    assert labelled == [max(one, key=one.__getitem__) for one in expected_labels[: len(TEXTS)]]


def _batch(client: openai.OpenAI, path: str, body: object) -> Any:
    line = {"custom_id": "one", "method": "POST", "url": path, "body": body}
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=path, completion_window="24h")
    wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", timeout_s=60)
    output = client.batches.retrieve(batch.id).output_file_id
    assert output is not None
    return json.loads(client.files.content(output).text)["response"]["body"]


@pytest.mark.parametrize("where", ["local", "server"])
def test_the_command_line_writes_them_to_files(
    semel: Processes, where: str, tmp_path: Path, expected_sparse: Vectors, expected_labels: list[dict[str, float]]
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n")
    to = ["--url", semel.url] if where == "server" else ["--local"]
    arguments = ["embed", *to, "--input-type", "none", str(tmp_path / "in.txt")]
    semel.semel(*arguments, "-o", str(tmp_path / "sparse.parquet"), "--model", "splade")
    column = pq.read_table(tmp_path / "sparse.parquet").column("sparse_embedding").to_pylist()
    check_sparse([SparseVector(np.array(r["indices"]), np.array(r["values"])) for r in column], expected_sparse)
    semel.semel(*arguments, "-o", str(tmp_path / "labels.jsonl"), "--model", "mood")
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["scores"] for line in lines] == [pytest.approx(one, abs=1e-4) for one in expected_labels[: len(TEXTS)]]
    refused = semel.semel(*arguments, "-o", str(tmp_path / "out.npy"), "--model", "splade", ok=False)
    assert "npy cannot hold sparse vectors" in refused.stderr
    assert not (tmp_path / "out.npy").exists()
