"""Widely used clients against a running stack; only the base URL is changed."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime

import cohere
import httpx
import numpy as np
import openai
import pytest
from cohere.core.api_error import ApiError
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from semel.errors import BadInputError
from semel.values.vectors import Vectors
from tests.support.processes import Processes

TEXTS = ["the first one", "the second one", "the first one"]


@pytest.fixture
def openai_client(semel: Processes) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{semel.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def cohere_client(semel: Processes) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as http:
        yield cohere.ClientV2(api_key="any", base_url=semel.url, httpx_client=http)


def test_openai_embeds(semel: Processes, openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model="fake", input=TEXTS)
    vectors = np.array([item.embedding for item in answer.data], np.float32)
    np.testing.assert_array_equal(vectors, semel.client.embed(TEXTS, model="fake"))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 9


def test_openai_reads_the_error(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model named 'nope'") as caught:
        openai_client.embeddings.create(model="nope", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        openai_client.embeddings.create(model="fake", input=[[1, 2, 3]])


def test_openai_asks_for_queries_and_documents(semel: Processes, openai_client: openai.OpenAI) -> None:
    def embedded(text: str, model: str = "prompted", **extra: str) -> list[float]:
        return openai_client.embeddings.create(model=model, input=text, extra_body=extra).data[0].embedding

    query, document = embedded("cat", input_type="query"), embedded("cat", input_type="document")
    assert query != document
    assert query == embedded("cat", prompt_name="query") == embedded("find cat")
    assert document == embedded("cat", prompt_name="document") == embedded("text cat")
    assert embedded("cat", model="fake", input_type="query") == embedded("cat", model="fake"), "it has no prompts"
    with pytest.raises(openai.BadRequestError, match="send only one of them"):
        embedded("cat", input_type="query", prompt_name="query")


def test_openai_lists_the_models(openai_client: openai.OpenAI) -> None:
    found = [model.id for model in openai_client.models.list()]
    assert {"fake", "prompted"} <= set(found)
    assert found[0] == "fake", "examples take the first model of the list"


def test_openai_retrieves_a_model(openai_client: openai.OpenAI) -> None:
    assert openai_client.models.retrieve("fake").id == "fake"
    with pytest.raises(openai.NotFoundError, match="no model named 'no/such'"):
        openai_client.models.retrieve("no/such")


def test_cohere_embeds_in_every_type(semel: Processes, cohere_client: cohere.ClientV2) -> None:
    types = ["float", "int8", "uint8", "binary", "ubinary"]
    answer = cohere_client.embed(model="fake", texts=TEXTS, input_type="classification", embedding_types=types)
    vectors = semel.client.embed(TEXTS, model="fake")
    got = answer.embeddings
    np.testing.assert_allclose(got.float_, vectors, rtol=1e-6)
    np.testing.assert_array_equal(got.int8, np.rint(vectors * 127))
    np.testing.assert_array_equal(np.subtract(got.uint8, 128), got.int8)
    np.testing.assert_array_equal(np.unpackbits(np.array(got.ubinary, np.uint8), axis=1), vectors > 0)
    np.testing.assert_array_equal(np.subtract(got.ubinary, 128), got.binary)
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.input_tokens == 9


def test_cohere_keeps_queries_and_documents_apart(semel: Processes, cohere_client: cohere.ClientV2) -> None:
    def embedded(input_type: str) -> Vectors:
        answer = cohere_client.embed(model="prompted", texts=["dog"], input_type=input_type, embedding_types=["float"])
        return np.array(answer.embeddings.float_, np.float32)

    plain = semel.client.embed(["find dog", "text dog", "dog"], model="prompted")
    kinds = ("search_query", "search_document", "clustering")
    np.testing.assert_array_equal([embedded(kind)[0] for kind in kinds], plain)


def test_cohere_reads_the_error(cohere_client: cohere.ClientV2) -> None:
    with pytest.raises(ApiError) as caught:
        cohere_client.embed(model="nope", texts=["x"], input_type="clustering", embedding_types=["float"])
    assert caught.value.status_code == 404
    assert "no model named 'nope'" in caught.value.body["message"]
    with pytest.raises(ApiError) as caught:
        cohere_client.embed(model="fake", input_type="clustering", embedding_types=["float"])
    assert (caught.value.status_code, "send either texts" in caught.value.body["message"]) == (400, True)


def test_cohere_cuts_the_beginning_of_a_text(semel: Processes, cohere_client: cohere.ClientV2) -> None:
    words = [f"word{i}" for i in range(25)]
    answer = cohere_client.embed(
        model="fake", texts=[" ".join(words)], input_type="clustering", embedding_types=["float"], truncate="START"
    )
    expected = semel.client.embed([" ".join(words[5:])], model="fake")
    np.testing.assert_array_equal(np.array(answer.embeddings.float_, np.float32), expected)


def test_cohere_embeds_inputs_and_returns_base64(semel: Processes, cohere_client: cohere.ClientV2) -> None:
    answer = cohere_client.embed(
        model="fake",
        inputs=[{"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "text"}]}],
        input_type="clustering",
        embedding_types=["base64"],
    )
    assert answer.embeddings.base64 is not None
    vector = np.frombuffer(base64.b64decode(answer.embeddings.base64[0]), "<f4")
    np.testing.assert_array_equal(vector, semel.client.embed(["one\ntext"], model="fake")[0])
    assert answer.meta is not None
    assert answer.meta.tokens is not None
    assert answer.meta.tokens.input_tokens == 1


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20", "ignore::pydantic.PydanticDeprecatedSince211")
def test_coheres_older_client_embeds(semel: Processes) -> None:
    expected = semel.client.embed(TEXTS, model="fake")
    with httpx.Client() as http:
        client = cohere.Client(api_key="any", base_url=semel.url, httpx_client=http)
        plain = client.embed(texts=TEXTS, model="fake")
        typed = client.embed(texts=TEXTS, model="fake", input_type="clustering", embedding_types=["float", "int8"])
    assert plain.response_type == "embeddings_floats"
    np.testing.assert_array_equal(np.array(plain.embeddings, np.float32), expected)
    assert typed.response_type == "embeddings_by_type"
    np.testing.assert_array_equal(np.array(typed.embeddings.float_, np.float32), expected)
    np.testing.assert_array_equal(typed.embeddings.int8, np.rint(expected * 127))


def test_cohere_reranks_in_both_versions(semel: Processes, cohere_client: cohere.ClientV2) -> None:
    documents = ["something else", "what was asked", "a third one", "what was asked"]
    vectors = semel.client.embed([*documents, "what was asked"], model="fake")
    expected = vectors[:4] @ vectors[4]
    v2 = cohere_client.rerank(model="fake", query="what was asked", documents=documents)
    assert [r.index for r in v2.results[:2]] == [1, 3], "equal scores keep the order of the input"
    scores = {r.index: r.relevance_score for r in v2.results}
    np.testing.assert_allclose([scores[i] for i in range(4)], expected, atol=1e-6)
    assert sorted(scores.values(), reverse=True) == [r.relevance_score for r in v2.results]
    with httpx.Client() as http:
        v1 = cohere.Client(api_key="any", base_url=semel.url, httpx_client=http).rerank(
            model="fake", query="what was asked", documents=documents, top_n=2, return_documents=True
        )
    assert [(r.index, r.document.text) for r in v1.results if r.document] == [
        (1, "what was asked"),
        (3, "what was asked"),
    ]


def test_rerank_omits_what_was_not_requested_and_names_its_kind(semel: Processes) -> None:
    body = {"model": "fake", "query": "q", "documents": [{"text": "a"}, "b"], "top_n": 1}
    answer = httpx.post(f"{semel.url}/v1/rerank", json=body).json()
    assert set(answer["results"][0]) == {"index", "relevance_score"}
    assert answer["meta"]["kind"] == "embedding similarity"
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_rerank_takes_the_documents_from_the_cache(semel: Processes) -> None:
    documents = [f"a document that is reranked {i}" for i in range(3)]
    semel.client.embed([f"text {document}" for document in documents], model="prompted")
    body = {"model": "prompted", "query": "a new query", "documents": documents}
    first = httpx.post(f"{semel.url}/v2/rerank", json=body)
    again = httpx.post(f"{semel.url}/v2/rerank", json=body)
    assert first.headers["x-semel-cache"] == "hits=0; computed=4; coalesced=0", "a prompt has its own entries"
    assert again.headers["x-semel-cache"] == "hits=4; computed=0; coalesced=0"
    assert first.json()["results"] == again.json()["results"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "", "documents": ["a"]}, "the query is empty"),
        ({"query": "q", "documents": []}, "documents is an empty list"),
        ({"query": "q", "documents": ["a", ""]}, "text 1 is empty"),
        ({"query": "q", "documents": ["a", "poison"]}, "document 1 cannot be scored"),
        ({"query": "poison", "documents": ["a"]}, "the query cannot be scored"),
        ({"query": "q", "documents": [{"title": "a"}]}, 'document 0 has no string in "text"'),
        ({"query": "q", "documents": ["a"], "top_n": 0}, "top_n"),
    ],
)
def test_rerank_refuses_bad_input(semel: Processes, body: dict[str, object], message: str) -> None:
    answer = httpx.post(f"{semel.url}/v1/rerank", json={"model": "fake", **body})
    assert 400 <= answer.status_code < 500
    assert message in answer.json()["message"]


def test_semels_own_client_reranks(semel: Processes) -> None:
    ranked = semel.client.rerank("what was asked", ["no", "what was asked"], model="fake", top_n=1)
    assert [(r.index, round(r.score, 5)) for r in ranked] == [(1, 1.0)]
    with pytest.raises(BadInputError, match="the query is empty"):
        semel.client.rerank("", ["a"], model="fake")


def test_hugging_faces_client_on_the_tei_routes(semel: Processes) -> None:
    client = InferenceClient(token="any")
    vector = client.feature_extraction("one text", model=f"{semel.url}/embed")
    np.testing.assert_allclose(np.asarray(vector), semel.client.embed(["one text"], model="fake"), rtol=1e-6)
    scores = client.sentence_similarity("x", other_sentences=["x", "y"], model=f"{semel.url}/similarity")
    assert scores[0] == pytest.approx(1)
    assert scores[1] < 0.99
    with pytest.raises(HfHubHTTPError, match="422"):
        client.feature_extraction("word " * 30, truncate=False, model=f"{semel.url}/embed")


def test_tei_shapes(semel: Processes) -> None:
    ranks = httpx.post(f"{semel.url}/rerank", json={"query": "x", "texts": ["y", "x"], "return_text": True}).json()
    assert [(r["index"], r["text"]) for r in ranks] == [(1, "x"), (0, "y")]
    plain = httpx.post(f"{semel.url}/rerank", json={"query": "x", "texts": ["y", "x"]}).json()
    assert [set(r) for r in plain] == [{"index", "score"}] * 2
    info = httpx.get(f"{semel.url}/info").json()
    assert (info["model_id"], info["max_input_length"]) == ("fake", 20)
    assert httpx.get(f"{semel.url}/health").status_code == 200
    long = httpx.post(f"{semel.url}/embed", json={"inputs": "word " * 30})
    assert (long.status_code, long.json()["error_type"]) == (422, "Validation")
    assert httpx.post(f"{semel.url}/embed", json={"inputs": "word " * 30, "truncate": True}).status_code == 200
    raw = np.array(httpx.post(f"{semel.url}/embed", json={"inputs": "x", "normalize": False}).json()[0])
    assert np.linalg.norm(raw) > 2
    unit = semel.client.embed(["x"], model="fake")[0]
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_tei_names_what_is_wrong_with_a_batch(semel: Processes) -> None:
    empty = httpx.post(f"{semel.url}/embed", json={"inputs": []})
    assert (empty.status_code, empty.json()["error_type"]) == (400, "Empty")
    many = httpx.post(f"{semel.url}/embed", json={"inputs": ["x"] * 3000})
    assert (many.status_code, many.json()["error_type"]) == (413, "Validation")
    unknown = httpx.post(f"{semel.url}/embed", json={"inputs": "x", "prompt_name": "nope"})
    assert (unknown.status_code, unknown.json()["error_type"]) == (422, "Validation")
    assert unknown.json()["error"] == "model 'fake' has no prompt 'nope' (it has: none)"


def test_tei_describes_the_model(semel: Processes) -> None:
    info = httpx.get(f"{semel.url}/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "fake"}}
    required = {"model_id", "served_model_name", "model_dtype", "max_concurrent_requests", "max_input_length"}
    required |= {"max_batch_tokens", "max_client_batch_size", "tokenization_workers", "version"}
    assert required <= info.keys()


def test_health_has_what_monitors_read(semel: Processes) -> None:
    for path in ("/health", "/health/"):
        body = httpx.get(semel.url + path).raise_for_status().json()
        assert (body["status"], body["backend"]["status"]) == ("healthy", "healthy")
        assert datetime.fromisoformat(body["timestamp"])


def test_rerank_without_a_version_takes_documents(semel: Processes) -> None:
    body = {"model": "reranker", "query": "the blue whale", "documents": ["nothing", "the blue whale"]}
    answer = httpx.post(f"{semel.url}/rerank", json=body).json()
    assert [each["index"] for each in answer["results"]] == [1, 0]
    assert answer["usage"]["prompt_tokens"] > 0


def test_vllms_scores(semel: Processes) -> None:
    one = httpx.post(f"{semel.url}/v1/score", json={"model": "reranker", "text_1": "a b", "text_2": ["a b", "a", "c"]})
    assert [each["score"] for each in one.json()["data"]] == [1.0, 0.5, 0.0]
    pairs = {"model": "fake", "queries": ["x", "y"], "documents": ["x", "z"]}
    vectors = semel.client.embed(["x", "y", "z"], model="fake")
    expected = [1.0, float(vectors[1] @ vectors[2])]
    answer = httpx.post(f"{semel.url}/score", json=pairs).json()
    assert [each["score"] for each in answer["data"]] == pytest.approx(expected, abs=1e-6)
    assert answer["kind"] == "embedding similarity"
    uneven = httpx.post(f"{semel.url}/score", json={"text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert (uneven.status_code, "text_1 has 2 texts and text_2 has 3" in uneven.text) == (400, True)


def test_infinitys_paths(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/embeddings", json={"model": "fake", "input": TEXTS}).json()
    vectors = np.array([each["embedding"] for each in answer["data"]], np.float32)
    np.testing.assert_array_equal(vectors, semel.client.embed(TEXTS, model="fake"))
    assert httpx.get(f"{semel.url}/models").json()["data"][0]["id"] == "fake"


@pytest.mark.parametrize("slash", ["", "/"])
def test_embed_reranks_own_routes(semel: Processes, slash: str) -> None:
    embedded = httpx.post(f"{semel.url}/api/v1/embed{slash}", json={"texts": TEXTS, "batch_size": 2}).json()
    expected = semel.client.embed(TEXTS, model="fake")
    np.testing.assert_array_equal(np.array(embedded["vectors"], np.float32), expected)
    assert [each["embedding"] for each in embedded["embeddings"]] == embedded["vectors"]
    assert (embedded["dim"], embedded["num_texts"], embedded["device"]) == (16, 3, "cpu")
    body = {"query": "x", "passages": ["y", "x", "z"], "top_k": 1}
    ranked = httpx.post(f"{semel.url}/api/v1/rerank{slash}", json=body).json()
    assert [(each["index"], each["text"]) for each in ranked["results"]] == [(1, "x")]
    assert ranked["method"] == "embedding similarity"


@pytest.mark.parametrize("name", ["\ud800", "\0", "a\nb"])
def test_a_model_name_that_no_database_can_store_is_bad_input(semel: Processes, name: str) -> None:
    for path, body in {
        "/v1/embeddings": {"input": "x"},
        "/v1/rerank": {"query": "q", "documents": ["x"]},
        "/v2/embed": {"texts": ["x"], "input_type": "clustering"},
    }.items():
        content = json.dumps({"model": name, **body}).encode()
        answer = httpx.post(semel.url + path, content=content, headers={"content-type": "application/json"})
        reason = "valid string" if name == "\ud800" else "cannot be printed"
        assert (answer.status_code, reason in answer.text) == (400, True), path


def test_similarity_names_the_bad_sentence(semel: Processes) -> None:
    def post(source: str, sentence: str) -> str:
        body = {"inputs": {"source_sentence": source, "sentences": [sentence]}}
        return str(httpx.post(f"{semel.url}/similarity", json=body).json()["error"])

    assert post("", "a") == "source_sentence is empty; leave it out, there is nothing to embed"
    assert post("a", "").startswith("text 0 is empty")


def test_a_request_without_a_model_uses_the_default_model(semel: Processes) -> None:
    asked, documents = {"input": ["a text"]}, {"query": "a query", "documents": ["a text"]}
    assert httpx.post(f"{semel.url}/v1/embeddings", json=asked).json()["model"] == "fake"
    assert httpx.post(f"{semel.url}/v1/rerank", json=documents).json()["model"] == "fake"
    cohere_body = {"texts": ["a text"], "input_type": "clustering"}
    vectors = httpx.post(f"{semel.url}/v2/embed", json=cohere_body).json()["embeddings"]["float"]
    expected = semel.client.embed(["a text"], model="fake")
    assert np.array_equal(np.array(vectors, np.float32), expected)
    assert np.array_equal(semel.client.embed(["a text"]), expected)
    assert semel.client.rerank(**documents) == semel.client.rerank(**documents, model="fake")  # type: ignore[arg-type]
    assert semel.client.submit(["a text"]).model == "fake"


def test_every_answer_has_a_request_id(semel: Processes) -> None:
    ids = [httpx.get(f"{semel.url}/health/live").headers["x-request-id"] for _ in range(2)]
    assert len(set(ids)) == 2
    own = httpx.get(f"{semel.url}/nowhere", headers={"x-request-id": "my-id.1"})
    assert (own.status_code, own.headers["x-request-id"]) == (404, "my-id.1")
    hostile = httpx.get(f"{semel.url}/health/live", headers={"x-request-id": "a b<script>"})
    assert hostile.headers["x-request-id"].startswith("req_")


def test_tei_tokenizes(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/tokenize", json={"inputs": ["a cat sat", "dog"]})
    assert answer.status_code == 200
    first, second = answer.json()
    assert [(token["text"], token["start"], token["stop"]) for token in first[1:]] == [
        ("a", 0, 1),
        ("cat", 2, 5),
        ("sat", 6, 9),
    ]
    assert (first[0]["special"], first[0]["start"], len(second)) == (True, None, 2)
    bare = httpx.post(f"{semel.url}/tokenize", json={"inputs": "dog", "add_special_tokens": False}).json()
    assert [[token["text"] for token in tokens] for tokens in bare] == [["dog"]]
    bad = httpx.post(f"{semel.url}/tokenize", json={"inputs": [""]})
    assert (bad.status_code, bad.json()["error_type"]) == (422, "Validation")


def test_tei_embeds_at_the_root(semel: Processes) -> None:
    answer = httpx.post(semel.url, json={"inputs": "at the root"})
    np.testing.assert_array_equal(
        np.array(answer.json(), np.float32), semel.client.embed(["at the root"], model="fake")
    )


def test_a_cross_encoder_reranks_and_the_answer_names_its_kind(
    semel: Processes, cohere_client: cohere.ClientV2
) -> None:
    journal = semel.folder / "scored"
    documents = ["the blue whale", "a small whale", "nothing of it"]
    answer = cohere_client.rerank(model="reranker", query="the blue whale", documents=documents, top_n=2)
    assert [r.index for r in answer.results] == [0, 1]
    assert answer.results[0].relevance_score == 1.0
    scored = journal.read_text()
    again = httpx.post(
        f"{semel.url}/v1/rerank", json={"model": "reranker", "query": "the blue whale", "documents": documents[::-1]}
    )
    assert again.json()["meta"]["kind"] == "cross-encoder"
    assert again.headers["x-semel-cache"] == "hits=3; computed=0; coalesced=0"
    assert journal.read_text() == scored, "no pair is scored twice"
    refused = httpx.post(
        f"{semel.url}/v1/rerank", json={"model": "reranker", "query": "q", "documents": ["fine", "poison"]}
    )
    assert (refused.status_code, "document 1 cannot be scored" in refused.json()["message"]) == (400, True)
