"""The routes of Text Embeddings Inference in this process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.values.model import ModelEntry
from tests.support.answers import dialect_of, message_of
from tests.support.service import Service, service
from tests.support.values import put, space, vectors
from tests.support.workers import no_worker


def embedded(api: Service, *texts: str) -> list[list[float]]:
    data = api.http.post("/v1/embeddings", json={"input": list(texts)}).json()["data"]
    return [item["embedding"] for item in data]


@pytest.mark.parametrize("path", ["/", "/embed"])
def test_embed_answers_with_bare_vectors(api: Service, path: str) -> None:
    answer = api.http.post(path, json={"inputs": ["one", "two"]})
    assert answer.json() == embedded(api, "one", "two")
    assert answer.headers["x-semel-cache"].startswith("hits=")
    assert api.http.post(path, json={"inputs": "one"}).json() == embedded(api, "one")


def test_a_long_text_is_refused_unless_truncate_is_set(api: Service) -> None:
    body: dict[str, Any] = {"inputs": "word " * 30}
    refused = api.http.post("/embed", json=body)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Validation")
    assert api.http.post("/embed", json={**body, "truncate": None}).status_code == 422
    assert api.http.post("/embed", json={**body, "truncate": True}).headers["x-semel-truncated"] == "1"


@pytest.mark.parametrize(("direction", "read"), [("Right", range(20)), ("Left", range(10, 30))])
def test_a_long_text_is_cut_on_the_requested_side(api: Service, direction: str, read: range) -> None:
    long, part = (" ".join(f"word{i}" for i in words) for words in (range(30), read))
    body = {"inputs": long, "truncate": True, "truncation_direction": direction}
    assert api.http.post("/embed", json=body).json() == embedded(api, part)


def test_vectors_that_a_model_normalises_keep_their_own_length_on_request(api: Service) -> None:
    answer = api.http.post("/embed", json={"inputs": "by length", "normalize": False})
    vector = np.array(answer.json()[0])
    assert np.linalg.norm(vector) > 1000
    np.testing.assert_allclose(vector / np.linalg.norm(vector), embedded(api, "by length")[0], atol=1e-6)


def test_rerank_sorts_by_score(api: Service) -> None:
    body = {"query": "x", "texts": ["y", "x"]}
    first, second = api.http.post("/rerank", json={**body, "return_text": True}).json()
    assert (first["index"], first["text"], second["index"]) == (1, "x", 0)
    assert first["score"] == pytest.approx(1, abs=1e-6)
    assert [set(rank) for rank in api.http.post("/rerank", json=body).json()] == [{"index", "score"}] * 2


def test_similarity_and_rerank_cut_on_the_requested_side(api: Service) -> None:
    long, end = "other " * 30 + "the very end", "other " * 17 + "the very end"
    cut = {"truncate": True, "truncation_direction": "Left"}
    inputs = {"source_sentence": end, "sentences": [long]}
    assert api.http.post("/similarity", json={"inputs": inputs, "parameters": cut}).json() == pytest.approx([1.0])
    (rank,) = api.http.post("/rerank", json={"query": end, "texts": [long], **cut}).json()
    assert rank["score"] == pytest.approx(1.0)
    (rank,) = api.http.post("/rerank", json={"query": end, "texts": [long], "truncate": True}).json()
    assert rank["score"] < 0.9


def test_similarity_takes_null_parameters(api: Service) -> None:
    body = {"inputs": {"source_sentence": "a", "sentences": ["a"]}, "parameters": None}
    assert api.http.post("/similarity", json=body).json() == pytest.approx([1.0])


def test_similarity_is_the_cosine_in_the_order_of_the_sentences(api: Service) -> None:
    inputs = {"source_sentence": "a pet", "sentences": ["a stone", "a pet"]}
    answer = api.http.post("/similarity", json={"inputs": inputs})
    stone, pet = (np.array(vector, np.float32) for vector in embedded(api, "a stone", "a pet"))
    assert answer.json() == pytest.approx([float(stone @ pet), 1.0], abs=1e-6)
    assert answer.headers["x-semel-cache"] == "hits=1; computed=2; coalesced=0"


def test_similarity_names_the_sentence_that_is_bad(api: Service) -> None:
    def refused(source: str, *sentences: str, status: int = 422) -> str:
        inputs = {"source_sentence": source, "sentences": list(sentences)}
        answer = api.http.post("/similarity", json={"inputs": inputs})
        assert answer.status_code == status
        return message_of(answer)

    assert refused("", "a").startswith("source_sentence is empty")
    assert refused("poison", "a").startswith("source_sentence has no vector")
    assert refused("a", "b", "").startswith("text 1 is empty")
    assert refused("a", status=400).startswith("sentences is an empty list")


def test_similarity_cuts_long_sentences_on_request(api: Service) -> None:
    body: dict[str, Any] = {"inputs": {"source_sentence": "word " * 30, "sentences": ["a"]}}
    assert api.http.post("/similarity", json=body).status_code == 422
    answer = api.http.post("/similarity", json={**body, "parameters": {"truncate": True}})
    assert answer.headers["x-semel-truncated"] == "1"


def test_tokenize_returns_the_tokens_of_each_text(api: Service) -> None:
    first, second = api.http.post("/tokenize", json={"inputs": ["a cat", "dog"]}).json()
    assert [(t["text"], t["special"], t["start"], t["stop"]) for t in first] == [
        ("[CLS]", True, None, None),
        ("a", False, 0, 1),
        ("cat", False, 2, 5),
    ]
    assert [token["text"] for token in second] == ["[CLS]", "dog"]


def test_tokenize_leaves_special_tokens_out_on_request(api: Service) -> None:
    bare = api.http.post("/tokenize", json={"inputs": "dog", "add_special_tokens": False}).json()
    assert [[token["text"] for token in tokens] for tokens in bare] == [["dog"]]


def test_info_describes_the_default_model(api: Service) -> None:
    info = api.http.get("/info").json()
    assert (info["model_id"], info["max_input_length"], info["max_client_batch_size"]) == ("fake", 20, 2048)
    assert (info["auto_truncate"], info["model_sha"]) == (False, "fake-a-16")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/embed", {"inputs": []}, 400, "inputs is an empty list"),
        ("/embed", {"inputs": ["x"] * 2049}, 413, "inputs has 2049 texts"),
        ("/embed", {"inputs": ["a", ""]}, 422, "text 1 is empty"),
        ("/embed", {"inputs": [[1, 2]]}, 422, "token ids"),
        ("/embed", {"inputs": "x", "prompt_name": "nope"}, 422, "prompt 'nope'"),
        ("/embed", {"inputs": "x", "dimensions": 7}, 422, "cannot be cut to 7"),
        ("/embed", {"inputs": "x", "truncation_direction": "both"}, 422, "truncation_direction: "),
        ("/embed", {"inputs": "poison"}, 422, "text 0 has no vector"),
        ("/rerank", {"query": "", "texts": ["a"]}, 422, "the query is empty"),
        ("/rerank", {"query": "q", "texts": []}, 400, "texts is an empty list"),
        ("/rerank", {"query": "q", "texts": ["poison"]}, 422, "document 0 cannot be scored"),
        ("/tokenize", {"inputs": [""]}, 422, "text 0 is empty"),
        ("/tokenize", {"inputs": {}}, 422, "not dict"),
        ("/tokenize", {"inputs": "x", "prompt_name": "nope"}, 422, "prompt 'nope'"),
    ],
)
def test_a_request_that_cannot_be_used_is_refused(
    api: Service, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    answer = api.http.post(path, json=body)
    assert (answer.status_code, dialect_of(answer)) == (status, "tei")
    assert message in message_of(answer)


def test_health_is_200_while_every_part_answers_and_503_without_a_worker(api: Service) -> None:
    assert (api.http.get("/health").status_code, api.http.get("/health").json()["status"]) == (200, "healthy")
    with no_worker(api):
        answer = api.http.get("/health")
    assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
    assert "no worker is alive" in message_of(answer)


@pytest.fixture(scope="module")
def on_a_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API whose default model is a cross-encoder, with prompts on none of its models."""
    models = {"fake": ModelEntry("fake:?max_tokens=20", kind="cross-encoder")}
    with service(tmp_path_factory.mktemp("tei"), models=models) as running:
        yield running


def test_rerank_uses_a_default_model_that_is_a_cross_encoder(on_a_cross_encoder: Service) -> None:
    ranks = on_a_cross_encoder.http.post("/rerank", json={"query": "a b", "texts": ["c", "b a"]}).json()
    assert [(rank["index"], rank["score"]) for rank in ranks] == [(1, 1.0), (0, 0.0)]
    assert on_a_cross_encoder.http.post("/embed", json={"inputs": "x"}).status_code == 422


def test_a_reranker_returns_its_logits_on_request(tmp_path: Path) -> None:
    models = {"fake": ModelEntry("fake:?activation=Sigmoid", kind="cross-encoder")}
    body = {"query": "a b", "texts": ["c", "b a"]}
    with service(tmp_path, models=models) as running:
        scores, logits = (
            [rank["score"] for rank in running.http.post("/rerank", json={**body, "raw_scores": raw}).json()]
            for raw in (False, True)
        )
    assert logits == [1.0, 0.0]
    assert scores == pytest.approx([0.7311, 0.5], abs=1e-4)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Service]:
    """An API whose default model no worker serves."""
    with service(tmp_path, models={"other": ModelEntry("fake:?dim=4")}) as running:
        yield running


def test_info_is_404_until_a_worker_has_served_the_default_model(bare: Service) -> None:
    answer = bare.http.get("/info")
    assert (answer.status_code, dialect_of(answer)) == (404, "tei")
    assert "no model named 'fake'" in message_of(answer)


def test_vectors_of_a_model_that_does_not_normalise_come_as_requested(bare: Service) -> None:
    raw = replace(space(4, normalize=False), model="fake")
    bare.services.stores.catalog.publish([raw], device="cpu")
    rows = vectors(2, 4) * 3
    put(bare.services.stores.vectors, ["one", "two"], rows, into=raw)

    def embed(**options: bool) -> Any:
        return np.array(bare.http.post("/embed", json={"inputs": ["one", "two"], **options}).json(), np.float32)

    assert np.array_equal(embed(normalize=False), rows)
    np.testing.assert_allclose(embed(), rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-6)
