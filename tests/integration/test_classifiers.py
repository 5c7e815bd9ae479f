"""Classifiers give the scores of transformers' text-classification pipeline."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, pipeline

from semel.backends.engine import Engine
from semel.backends.models.factory import create_backend
from semel.backends.models.head import labels_of
from semel.errors import ModelLoadError
from semel.values.activation import Head, activated
from semel.values.text import Input, Pair
from tests.support.model_files import source
from tests.support.tiny_models import PAIRS, SIZES, TEXTS, tokenizer

LABELS = {0: "good", 1: "bad", 2: "neither"}


def model(folder: Path, **config: Any) -> Path:
    torch.manual_seed(0)
    tokenizer(folder)
    names = {"id2label": LABELS, "label2id": {label: i for i, label in LABELS.items()}}
    made = BertForSequenceClassification(BertConfig(**{**SIZES, **names, **config}))
    torch.nn.init.normal_(made.classifier.weight, std=2.0)  # or all scores are close to each other
    made.save_pretrained(folder)
    return folder


def library(folder: Path) -> Callable[[Any], list[dict[str, Any]]]:
    """Transformers' pipeline, for one text or pair."""
    classify = pipeline("text-classification", model=str(folder), device="cpu", top_k=None)

    def of(one: Any) -> list[dict[str, Any]]:
        found = classify(one, truncation=True, max_length=32)
        return found[0] if isinstance(found[0], list) else found

    return of


def scores(folder: Path, inputs: list[Input]) -> np.ndarray[Any, Any]:
    described = source(folder, kind="classifier").described
    backend = create_backend(source(folder, kind="classifier"), "cpu")
    engine, rows = Engine(max_batch_tokens=64), np.full((len(inputs), described.dim), np.nan, np.float32)
    try:
        engine.load(backend)
        for part in engine.submit(backend, inputs):
            rows[part.indices] = part.vectors
    finally:
        engine.close()
    return activated(Head.from_json(described.spec.pooling).activation, rows)


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification", "regression"])
def test_scores_are_those_of_transformers(tmp_path: Path, problem: str | None) -> None:
    folder = model(tmp_path, problem_type=problem)
    classify = library(folder)
    inputs: list[Input] = [*TEXTS, *PAIRS]
    asked = [{"text": i.query, "text_pair": i.document} if isinstance(i, Pair) else i for i in inputs]
    expected = [{each["label"]: each["score"] for each in classify(one)} for one in asked]
    found = [dict(zip(LABELS.values(), row.tolist(), strict=True)) for row in scores(folder, inputs)]
    assert found == [pytest.approx(one, abs=1e-4) for one in expected]
    assert len({max(one, key=one.__getitem__) for one in expected}) > 1, "one label for all would prove little"


def test_one_label_is_a_probability(tmp_path: Path) -> None:
    folder = model(tmp_path, id2label={0: "spam"}, label2id={"spam": 0})
    expected = [library(folder)(text)[0]["score"] for text in TEXTS]
    assert scores(folder, list(TEXTS))[:, 0].tolist() == pytest.approx(expected, abs=1e-4)


def test_labels_are_in_the_order_of_the_logits() -> None:
    many = {str(i): f"label {i}" for i in (10, 9, 1, 0, 2)}
    assert labels_of({"id2label": many}) == ["label 0", "label 1", "label 2", "label 9", "label 10"]
    assert labels_of({}) == ["LABEL_0", "LABEL_1"]
    assert labels_of({"num_labels": 3}) == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_other_labels_are_another_space(tmp_path: Path) -> None:
    before = source(model(tmp_path), kind="classifier").described.spec.fingerprint
    config = json.loads((tmp_path / "config.json").read_text())
    renamed = {**config["id2label"], "0": "fine"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "id2label": renamed}))
    assert source(tmp_path, kind="classifier").described.spec.fingerprint != before


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    tokenizer(tmp_path)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="is not a classifier: its architecture BertModel does not end in"):
        scores(tmp_path, ["a text"])


@pytest.mark.parametrize("device", ["mlx", "vulkan:0"])
def test_another_framework_says_which_devices_run_classifiers(tmp_path: Path, device: str) -> None:
    with pytest.raises(ModelLoadError, match="does not run models of kind classifier; start a worker with --device"):
        create_backend(source(model(tmp_path), kind="classifier"), device)
