"""Every parameter that the public document of a dialect lists is honoured or refused by its name, never ignored.

The lists are those of OpenAI, Voyage, Jina, vLLM, infinity, Cohere (v1 and v2), TEI, Ollama and embed-rerank as of
November 2026. Each parameter has a value that asks for something else than the plain request.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from semel.api.dialects.strict import HARMLESS
from semel.values.model import ModelEntry
from tests.support.answers import message_of
from tests.support.service import Service, service

LONG = "one two three four five six"

MODELS = {
    "fake": ModelEntry("fake:?dim=16&max_tokens=20", matryoshka_dims=(8,), prompts={"query": "find ", "task a": "a "}),
    "reranker": ModelEntry("fake:?max_tokens=20&activation=Sigmoid", kind="cross-encoder"),
    "labels": ModelEntry("fake:?dim=3&max_tokens=20&activation=Softmax", kind="classifier"),
    "sparse": ModelEntry("fake:?max_tokens=20", kind="sparse", prompts={"query": "find "}),
}

OPENAI = {"model": "fake", "input": [LONG]}
COHERE = {"model": "fake", "texts": [LONG], "input_type": "classification"}
DOCUMENTS = [{"text": "one", "title": "six"}, {"text": "one two", "title": "five"}, {"text": "seven", "title": "one"}]
RERANK = {"model": "reranker", "query": "one two", "documents": DOCUMENTS}

HONOURED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/embeddings": (
        OPENAI,
        {
            "encoding_format": "base64",
            "dimensions": 8,
            "input_type": "query",
            "prompt_name": "task a",
            "max_tokens": 2,
            "normalize": False,
            "document_tokens": 2,
            "output_dtype": "int8",  # Voyage
            "output_dimension": 8,
            "embedding_type": "binary",  # Jina
            "normalized": False,
            "task": "retrieval.query",
            "truncate_prompt_tokens": 2,  # vLLM
        },
    ),
    "/v2/embed": (
        COHERE,
        {"embedding_types": ["int8"], "output_dimension": 8, "input_type": "search_query", "max_tokens": 2},
    ),
    "/v1/embed": ({"model": "fake", "texts": [LONG]}, {"embedding_types": ["base64"], "input_type": "search_query"}),
    "/v1/rerank": (
        RERANK,
        {
            "top_n": 1,
            "top_k": 1,
            "return_documents": True,
            "rank_fields": ["title"],
            "max_tokens_per_doc": 1,
            "raw_scores": True,  # infinity
            "use_activation": False,  # vLLM
        },
    ),
    "/embed": ({"inputs": LONG}, {"normalize": False, "dimensions": 8, "prompt_name": "query"}),
    "/rerank": (RERANK, {"top_n": 1, "return_documents": True, "use_activation": False}),
    "/v1/score": (
        {"model": "reranker", "text_1": "one two", "text_2": ["one two", "two"]},
        {"truncate_prompt_tokens": 2, "use_activation": False},
    ),
    "/classify": ({"input": [LONG]}, {"truncate_prompt_tokens": 2, "use_activation": False}),
    "/predict": ({"inputs": LONG}, {"raw_scores": True}),
    "/embed_sparse": ({"inputs": LONG}, {"prompt_name": "query"}),
    "/api/embed": ({"model": "fake", "input": LONG}, {"dimensions": 8, "options": {"num_ctx": 2}}),
    "/api/v1/embed/": ({"texts": [LONG]}, {"normalize": False, "max_tokens_override": 2}),
    "/api/v1/rerank/": (
        {"model": "reranker", "query": "one", "passages": ["one", "two"]},
        {"top_k": 1, "return_documents": False},
    ),
}

REFUSED: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {
        "late_chunking": True,
        "add_special_tokens": False,
        "embed_dtype": "float16",
        "endianness": "big",
        "modality": "image",
        "use_activation": False,
        "messages": [],
        "instruction": "find",
        "prompt": "query: ",
        "pooling": "cls",
        "chat_template": "x",
        "mm_processor_kwargs": {},
        "return_multivector": True,
        "priority_class": 1,
    },
    "/v2/embed": {"images": ["data:…"], "task": "x"},
    "/v1/embed": {"images": ["data:…"], "compress": True},
    "/v1/rerank": {"max_chunks_per_doc": 3, "truncate_prompt_tokens": 2, "mm_processor_kwargs": {}},
    "/embed": {"pooling": "cls", "max_tokens": 3},
    "/v1/score": {"chat_template": "x"},
    "/classify": {
        "activation": True,
        "add_special_tokens": False,
        "raw_scores": True,
        "messages": [],
        "cache_salt": "x",
    },
    "/predict": {"normalize": True, "parameters": {"top_k": 1}},
    "/embed_sparse": {"dimensions": 8, "normalize": True},
    "/api/embed": {"options": {"rope_frequency_base": 1}, "template": "x"},
    "/api/v1/embed/": {"truncation_strategy": "extract", "return_processing_info": True},
}

CUT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/embeddings": ({"truncate": False}, {"truncate_side": "left"}),
    "/v2/embed": ({"truncate": "NONE"}, {"truncate": "START"}),
    "/embed": ({"truncate": False}, {"truncate": True, "truncation_direction": "Left"}),
    "/predict": ({"truncate": False}, {"truncate": True, "truncation_direction": "Left"}),
    "/embed_sparse": ({"truncate": False}, {"truncate": True, "truncation_direction": "Left"}),
    "/api/embed": ({"truncate": False}, {}),
    "/api/v1/embed/": ({"auto_truncate": False}, {}),
}
"""Parameters that matter for texts above the limit: those that refuse them, and those that cut the other end."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("parameters"), models=MODELS) as running:
        yield running


def numbers(api: Service, path: str, body: dict[str, Any]) -> Any:
    """The part of an answer that a parameter may change."""
    answer = api.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    varying = ("id", "created", "total_duration", "timestamp", "processing_time", "usage", "meta")
    return {k: v for k, v in found.items() if k not in varying} if isinstance(found, dict) else found


HONOURED_CASES = [(path, name) for path, (_, fields) in HONOURED.items() for name in fields]


@pytest.mark.parametrize(("path", "name"), HONOURED_CASES)
def test_a_parameter_that_is_accepted_changes_the_answer(api: Service, path: str, name: str) -> None:
    plain, fields = HONOURED[path]
    assert numbers(api, path, {**plain, name: fields[name]}) != numbers(api, path, plain)


REFUSED_CASES = [(path, name) for path, fields in REFUSED.items() for name in fields]


@pytest.mark.parametrize(("path", "name"), REFUSED_CASES)
def test_a_parameter_that_is_not_honoured_is_refused_by_its_name(api: Service, path: str, name: str) -> None:
    answer = api.http.post(path, json={**HONOURED[path][0], name: REFUSED[path][name]})
    assert answer.status_code in (400, 422)
    assert name in message_of(answer) or next(iter(REFUSED[path][name])) in message_of(answer)


@pytest.mark.parametrize("path", CUT)
def test_a_parameter_about_long_texts_is_honoured(api: Service, path: str) -> None:
    plain = HONOURED[path][0]
    (field,) = (name for name in ("input", "texts", "inputs") if name in plain)
    words = [f"w{i}" for i in range(30)]
    whole = " ".join(words) if isinstance(plain[field], str) else [" ".join(words)]
    refusing, other_end = CUT[path]
    refused = api.http.post(path, json={**plain, field: whole, **refusing})
    assert refused.status_code in (400, 422)
    assert "longer than the model reads" in message_of(refused)
    if other_end:
        end = " ".join(words[10:]) if isinstance(whole, str) else [" ".join(words[10:])]
        cut = numbers(api, path, {**plain, field: whole, **other_end})
        last = numbers(api, path, {**plain, field: end})
        assert (cut | {field: 0} if isinstance(cut, dict) else cut) == (
            last | {field: 0} if isinstance(last, dict) else last
        )


@pytest.mark.parametrize("path", HONOURED)
def test_harmless_fields_change_nothing(api: Service, path: str) -> None:
    plain = HONOURED[path][0]
    more = {name: {"a": "b"} if name == "metadata" else "x" for name in HARMLESS}
    assert numbers(api, path, {**more, **plain}) == numbers(api, path, plain)


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        ("truncate_prompt_tokens", 2, {"input": ["one two"]}),
        ("document_tokens", 3, {"input": ["one two three"]}),
        ("task", "task a", {"prompt_name": "task a"}),
        ("task", "retrieval.query", {"input_type": "query"}),
        ("output_dimension", 8, {"dimensions": 8}),
        ("truncate_prompt_tokens", -1, {}),
        ("embedding_type", "base64", {"encoding_format": "base64"}),
        ("normalized", True, {}),
    ],
)
def test_a_name_of_another_dialect_means_the_same(api: Service, field: str, value: Any, same: dict[str, Any]) -> None:
    got = numbers(api, "/v1/embeddings", {**OPENAI, field: value})
    assert got == numbers(api, "/v1/embeddings", {**OPENAI, **same})


def test_two_names_of_one_parameter_may_not_disagree(api: Service) -> None:
    answer = api.http.post("/v1/embeddings", json={**OPENAI, "dimensions": 16, "output_dimension": 8})
    assert answer.status_code == 400
    assert "dimensions and output_dimension are two names of one parameter" in message_of(answer)


def test_a_task_for_which_the_model_has_no_prompt_is_refused(api: Service) -> None:
    for task in ("separation", "retrieval.passage"):
        answer = api.http.post("/v1/embeddings", json={**OPENAI, "task": task})
        assert answer.status_code == 400
        assert f"no prompt {task!r} (it has: query, task a)" in message_of(answer)


def test_logits_and_scores_come_from_one_cached_row(api: Service) -> None:
    body = {"model": "reranker", "query": "a logit", "documents": ["a logit", "none"]}
    scores = api.http.post("/v1/rerank", json=body)
    logits = api.http.post("/v1/rerank", json={**body, "raw_scores": True})
    assert logits.headers["x-semel-cache"] == "hits=2; computed=0; coalesced=0"
    assert [each["relevance_score"] for each in logits.json()["results"]] == [1.0, 0.0]
    assert [each["relevance_score"] for each in scores.json()["results"]] == pytest.approx([0.7310586, 0.5])
