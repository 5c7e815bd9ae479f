"""Lines of a batch's input file: their envelopes, and the requests in them."""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.api.batch.lines import (
    ENDPOINTS,
    Line,
    LineProblemError,
    LineRequest,
    Row,
    default_model,
    raw_lines,
    read_line,
    request_of,
)
from semel.cache.keys import input_key
from semel.errors import BadInputError, InvalidTextError, UnavailableError, UnknownModelError
from semel.tasks.jobs.batches import LineError
from semel.values.text import ItemError, Outcome, Pair
from tests.support.batches import line
from tests.support.parts import Parts

EMBEDDINGS, RERANK = "/v1/embeddings", "/v1/rerank"


# Lines of the file


def lines_of(folder: Path, content: bytes, max_bytes: int = 100) -> list[tuple[int, bytes]]:
    path = folder / "input.jsonl"
    path.write_bytes(content)
    return list(raw_lines(path, max_bytes=max_bytes))


def test_lines_are_numbered_and_empty_ones_are_skipped(tmp_path: Path) -> None:
    assert lines_of(tmp_path, b"\na\r\n \n  b \n\nc") == [(2, b"a"), (4, b"b"), (6, b"c")]
    assert lines_of(tmp_path, b"") == []


def test_a_long_line_ends_the_reading_with_its_number(tmp_path: Path) -> None:
    with pytest.raises(LineProblemError) as refused:
        lines_of(tmp_path, b"x" * 100 + b"\n" + b"x" * 102, max_bytes=101)
    assert refused.value.line == LineError(
        "line_too_long", "line 2: longer than 101 bytes (SEMEL_MAX_BODY_BYTES); split the request", line=2
    )


def test_a_sound_line_has_an_id_and_a_body() -> None:
    sent = line("a", input="x")
    assert read_line(1, json.dumps(sent).encode(), endpoint=EMBEDDINGS) == Line("a", sent["body"])


def test_more_fields_of_a_line_do_no_harm() -> None:
    assert read_line(1, json.dumps({**line("a"), "priority": 3}).encode(), endpoint=EMBEDDINGS).custom_id == "a"


def test_a_line_may_leave_the_model_to_the_server() -> None:
    sent = {**line("a"), "body": {"input": "x"}}
    assert read_line(1, json.dumps(sent).encode(), endpoint=EMBEDDINGS).body == {"input": "x"}


def test_a_lone_surrogate_is_left_to_the_request() -> None:
    read = read_line(1, b'{"custom_id":"a","method":"POST","url":"/v1/rerank","body":{"q":"\\ud800"}}', endpoint=RERANK)
    assert read.body == {"q": "\ud800"}


@pytest.mark.parametrize(
    ("raw", "code", "message", "param"),
    [
        (b"{oops", "invalid_json_line", "not JSON: ", None),
        (b"\xff", "invalid_json_line", "not JSON: ", None),
        (b"[" * 100_000, "invalid_json_line", "not JSON: ", None),
        (b"[]", "invalid_json_line", "must be a JSON object, not list", None),
        (b"null", "invalid_json_line", "must be a JSON object, not NoneType", None),
        ({"custom_id": 7}, "invalid_custom_id", "custom_id must be a non-empty string", "custom_id"),
        ({"custom_id": ""}, "invalid_custom_id", "custom_id must be a non-empty string", "custom_id"),
        ({"custom_id": None}, "invalid_custom_id", "custom_id must be a non-empty string", "custom_id"),
        ({"method": "GET"}, "invalid_method", "method must be POST, not 'GET'", "method"),
        ({"method": None}, "invalid_method", "method must be POST, not None", "method"),
        ({"url": RERANK}, "mismatched_url", f"url must be {EMBEDDINGS}, as in the batch, not '{RERANK}'", "url"),
        ({"body": "x"}, "invalid_request", "body must be an object", "body"),
        ({"body": None}, "invalid_request", "body must be an object", "body"),
        ({"body": {"model": 7}}, "invalid_request", "body.model must be the name of a model", "body.model"),
    ],
)
def test_an_unsound_line_makes_the_batch_invalid(raw: Any, code: str, message: str, param: str | None) -> None:
    content = raw if isinstance(raw, bytes) else json.dumps({**line("a", input="x"), **raw}).encode()
    with pytest.raises(LineProblemError) as refused:
        read_line(12, content, endpoint=EMBEDDINGS)
    error = refused.value.line
    assert (error.code, error.line, error.param) == (code, 12, param)
    assert error.message.startswith(f"line 12: {message}")
    assert str(refused.value) == error.message


# Requests


def read(running: Parts, endpoint: str = EMBEDDINGS, **body: Any) -> LineRequest:
    return request_of(running.services, endpoint, Line("a", {"model": "fake", **body}))


def rows(*vectors: Sequence[float], truncated: bool = False) -> list[Row]:
    return [Row(b"k", np.array(v, np.float32), Outcome.COMPUTED, 3, truncated, None) for v in vectors]


def test_a_request_has_its_texts_in_their_space(running: Parts) -> None:
    space = running.services.stores.catalog.space("prompted", "query")
    request = read(running, model="prompted", input=["a", "b"], input_type="query")
    assert request.inputs == [(space, "a"), (space, "b")]


def test_the_answer_is_that_of_the_route(running: Parts) -> None:
    body = read(running, input=["a", "b"]).answer(rows([1.0] * 16, [2.0] * 16))
    assert (body["model"], body["usage"]) == ("fake", {"prompt_tokens": 6, "total_tokens": 6})
    assert [(item["index"], float(item["embedding"][0])) for item in body["data"]] == [(0, 1.0), (1, 2.0)]


def test_an_answer_may_be_base64(running: Parts) -> None:
    body = read(running, input="a", encoding_format="base64").answer(rows([0.5] * 16))
    assert np.frombuffer(base64.b64decode(body["data"][0]["embedding"]), "<f4").tolist() == [0.5] * 16


def test_a_truncated_text_fails_a_request_that_refuses_truncation(running: Parts) -> None:
    cut = rows([1.0] * 16, truncated=True)
    assert len(read(running, input="a").answer(cut)["data"]) == 1
    with pytest.raises(InvalidTextError, match=r"text 0 has no vector: .* longer than the model reads"):
        read(running, input="a", truncate=False).answer(cut)


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ({}, BadInputError, "input: Field required"),
        ({"input": []}, BadInputError, "input is an empty list"),
        ({"input": [1, 2]}, BadInputError, "token ids"),
        ({"input": "x", "dimensions": 7}, BadInputError, "cannot be cut to 7 dimensions"),
        ({"input": "x", "model": "nope"}, UnknownModelError, "no model named 'nope'"),
        ({"input": "x", "model": "reranker"}, BadInputError, "is a cross-encoder"),
        ({"input": ["fine", ""]}, InvalidTextError, "text 1 is empty"),
        ({"input": "\ud800"}, InvalidTextError, "lone surrogate"),
        ({"input": "x", "encoding_format": "hex"}, BadInputError, "encoding_format"),
    ],
)
def test_a_request_that_cannot_be_run_says_why(running: Parts, body: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(running, **body)


def test_a_rerank_with_a_cross_encoder_has_pairs(running: Parts) -> None:
    request = read(running, RERANK, model="reranker", query="q", documents=["a", {"text": "b"}])
    assert [item for _, item in request.inputs] == [Pair("q", "a"), Pair("q", "b")]
    body = request.answer(rows([0.25], [0.75]))
    assert [(item["index"], item["relevance_score"]) for item in body["results"]] == [(1, 0.75), (0, 0.25)]
    assert "document" not in body["results"][0]
    assert body["meta"]["kind"] == "cross-encoder"


def test_a_rerank_with_an_embedding_model_has_the_query_first(running: Parts) -> None:
    request = read(running, RERANK, model="prompted", query="q", documents=["a", "b"], top_n=1, return_documents=True)
    assert [(space.prompt_name, item) for space, item in request.inputs] == [
        ("query", "q"),
        ("document", "a"),
        ("document", "b"),
    ]
    body = request.answer(rows([1.0, 0.0], [0.0, 1.0], [2.0, 0.0]))
    assert body["results"] == [{"index": 1, "relevance_score": 1.0, "document": {"text": "b"}}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "q"}, "documents: Field required"),
        ({"query": "", "documents": ["a"]}, "the query is empty"),
        ({"query": "q", "documents": []}, "documents is an empty list"),
        ({"query": "q", "documents": ["a", {"title": "b"}]}, 'document 1 has no string in "text"'),
    ],
)
def test_a_rerank_that_cannot_be_run_says_why(running: Parts, body: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read(running, RERANK, **body)


def test_an_error_names_the_document_or_the_query_that_failed(running: Parts) -> None:
    failed = ItemError("backend_error", "the model fails")
    by_pairs = read(running, RERANK, model="reranker", query="q", documents=["a", "b"]).failed
    by_vectors = read(running, RERANK, model="fake", query="q", documents=["a", "b"]).failed
    assert "document 1 cannot be scored: the model fails" in str(by_pairs(1, failed))
    assert "document 0 cannot be scored" in str(by_vectors(1, failed))
    assert "the query cannot be scored" in str(by_vectors(0, failed))


def test_an_outage_is_not_the_fault_of_a_text(running: Parts) -> None:
    error = read(running, input="a").failed(0, ItemError("service_unavailable", "no worker"))
    assert isinstance(error, UnavailableError)
    assert isinstance(read(running, input="a").failed(0, ItemError("backend_error", "bad")), InvalidTextError)


def test_the_endpoints_have_the_errors_of_their_dialects() -> None:
    assert {path: endpoint.dialect for path, endpoint in ENDPOINTS.items()} == {
        EMBEDDINGS: "openai",
        RERANK: "cohere",
        "/classify": "openai",
        "/embed_sparse": "tei",
    }


def test_lines_without_a_model_take_the_one_that_the_route_takes(running: Parts) -> None:
    assert default_model(running.services, EMBEDDINGS) == "fake"
    assert default_model(running.services, "/classify") == "fake", "there is no classifier; each line says so"
    scorer = replace(running.services.stores.catalog.space("reranker"), model="labels", fingerprint=b"l" * 32)
    spec = replace(scorer.spec, kind="classifier")
    running.services.stores.catalog.publish([replace(scorer, spec_json=spec.canonical_json().decode())], device="cpu")
    assert default_model(running.services, "/classify") == "labels"


def test_keys_of_a_request_are_those_of_the_cache(running: Parts) -> None:
    ((space, text),) = read(running, input="keyed").inputs
    embedded = running.services.pipeline.embed(space, [text])
    found = running.services.stores.vectors.get_many([input_key(space.fingerprint, "keyed")], dim=16)
    assert found.vectors is not None
    np.testing.assert_array_equal(found.vectors, embedded.vectors)
