"""What the dialects share: texts in, vectors or an error out, headers about the cache."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from semel.api.dialects.embedding import cache_headers, embed_all, no_vector, space_of, texts_of, too_large
from semel.api.dialects.openai import EmbeddingsRequest
from semel.errors import (
    BadInputError,
    DeviceLostError,
    InvalidTextError,
    SemelError,
    TextTooLongError,
    UnavailableError,
    UnknownModelError,
    UnknownPromptError,
)
from semel.settings import Settings
from semel.steps import finish
from semel.values.text import ItemError, Outcome
from semel.values.variant import Variant
from semel.values.vectors import Embedded, Vectors
from tests.support.service import Service
from tests.support.values import space

NARROW = Settings(max_request_texts=3, max_text_bytes=10)

# Texts in


@pytest.mark.parametrize(
    ("given", "texts"),
    [("one", ["one"]), (["one"], ["one"]), (["a", "a", "b"], ["a", "a", "b"]), ("x" * 10, ["x" * 10]), ("", [""])],
)
def test_a_text_or_a_list_is_a_list_of_texts(given: Any, texts: list[str]) -> None:
    assert texts_of(given, NARROW) == texts


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "input must be a text or a list of texts, not NoneType"),
        ({"a": 1}, "not dict"),
        (7, "not int"),
        ([], "input is an empty list"),
        (["a"] * 4, "input has 4 texts, and one request takes at most 3; submit a job: POST /v1/jobs"),
        ([1, 2, 3], "token ids.*check_embedding_ctx_length=False"),
        ([[1, 2], [3]], "input holds token ids"),
        ("x" * 11, "text 0 is longer than 10 characters"),
        (["a", "x" * 11], r"text 1 is longer than 10 characters \(SEMEL_MAX_TEXT_BYTES\)"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(given: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        texts_of(given, NARROW)


def test_an_error_uses_the_dialects_name_of_the_field() -> None:
    with pytest.raises(BadInputError, match=r"^documents is an empty list"):
        texts_of([], NARROW, name="documents")


def test_items_that_are_no_texts_are_left_for_the_check_of_each_text() -> None:
    assert texts_of(["a", 3], NARROW) == ["a", 3]


def test_the_limit_is_named_with_its_setting() -> None:
    assert too_large(NARROW) == "is longer than 10 characters (SEMEL_MAX_TEXT_BYTES)"


# Vectors out


def embed(api: Service, *given: Any, **options: Any) -> tuple[Embedded, Vectors]:
    return finish(embed_all(api.services, *given, **options), api.services.fleet.sender)


def test_every_text_gets_its_vector_in_order(api: Service) -> None:
    space = api.services.stores.catalog.space("fake")
    embedded, vectors = embed(api, space, ["one", "two", "one"])
    assert (vectors.shape, vectors.dtype) == ((3, 16), np.float32)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    assert embedded.outcomes == [Outcome.COMPUTED, Outcome.COMPUTED, Outcome.COALESCED]


def test_the_first_text_without_a_vector_is_named_and_the_others_are_cached(api: Service) -> None:
    space = api.services.stores.catalog.space("fake")
    with pytest.raises(InvalidTextError, match=r"text 1 has no vector: .*'poison'") as caught:
        embed(api, space, ["cached although", "a poison", "poison"])
    assert caught.value.index == 1
    again, _ = embed(api, space, ["cached although"])
    assert again.outcomes == [Outcome.HIT]


def test_a_long_text_is_cut_or_refused(api: Service) -> None:
    space, long = api.services.stores.catalog.space("fake"), "word " * 30
    embedded, _ = embed(api, space, [long])
    assert embedded.truncated.tolist() == [True]
    with pytest.raises(InvalidTextError, match="longer than the model reads"):
        embed(api, space, [long], truncate=False)


def test_a_size_that_the_model_does_not_offer_is_refused_before_anything_is_computed(api: Service) -> None:
    space = api.services.stores.catalog.space("fake")
    with pytest.raises(BadInputError, match="cannot be cut to 7 dimensions"):
        embed(api, space, ["never computed"], dimensions=7)
    assert embed(api, space, ["never computed"], dimensions=16)[0].outcomes == [Outcome.COMPUTED]


def test_a_cross_encoder_embeds_nothing(api: Service) -> None:
    with pytest.raises(BadInputError, match="cross-encoder"):
        embed(api, api.services.stores.catalog.space("reranker"), ["a text"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ItemError.of(TextTooLongError()), InvalidTextError),
        (ItemError("backend_error", "the model fails"), InvalidTextError),
        (ItemError("invalid_vector", "is NaN"), InvalidTextError),
        (ItemError("service_unavailable", "no worker"), UnavailableError),
        (ItemError("device_lost", "gone"), DeviceLostError),
        (ItemError("a_code_of_tomorrow", "new"), SemelError),
    ],
)
def test_a_fault_of_the_text_is_bad_input_and_any_other_keeps_its_kind(
    error: ItemError, kind: type[SemelError]
) -> None:
    found = no_vector(4, error)
    assert type(found) is kind
    assert str(found) == f"text 4 has no vector: {error.message}"


# Headers


def embedded(*outcomes: Outcome, inference_s: float | None = 0.25, waited_s: float = 1.0) -> Embedded:
    n = len(outcomes)
    flags = np.array([outcome is Outcome.HIT for outcome in outcomes])
    tokens = np.zeros(n, np.int32)
    return Embedded(np.zeros((n, 2), np.float32), list(outcomes), {}, tokens, flags, waited_s, inference_s)


def test_the_headers_count_outcomes_and_cut_texts() -> None:
    headers = cache_headers(embedded(Outcome.HIT, Outcome.HIT, Outcome.COMPUTED, Outcome.COALESCED))
    assert headers["x-semel-cache"] == "hits=2; computed=1; coalesced=1"
    assert headers["x-semel-truncated"] == "2"


def test_the_times_are_milliseconds_and_add_up() -> None:
    headers = cache_headers(embedded(Outcome.COMPUTED))
    assert (headers["x-inference-time"], headers["x-queue-time"]) == ("250.0", "750.0")


def test_a_time_is_never_negative() -> None:
    assert cache_headers(embedded(Outcome.COMPUTED, inference_s=0.3, waited_s=0.2))["x-queue-time"] == "0.0"


def test_several_parts_are_summed() -> None:
    headers = cache_headers(embedded(Outcome.HIT), embedded(Outcome.COMPUTED, inference_s=0.5, waited_s=0.5))
    assert headers == {
        "x-semel-cache": "hits=1; computed=1; coalesced=0",
        "x-semel-truncated": "1",
        "x-inference-time": "750.0",
        "x-queue-time": "750.0",
    }


def test_a_part_that_ran_as_a_job_leaves_the_times_out() -> None:
    headers = cache_headers(embedded(Outcome.HIT), embedded(Outcome.COMPUTED, inference_s=None))
    assert set(headers) == {"x-semel-cache", "x-semel-truncated"}


# Spaces


@pytest.mark.parametrize(
    ("asked", "prompt"),
    [
        ({"model": "prompted"}, ""),
        ({"model": "prompted", "prompt_name": "query"}, "query"),
        ({"model": "prompted", "input_type": "query"}, "query"),
        ({"model": "prompted", "input_type": "document"}, "document"),
        ({"model": "fake", "input_type": "query"}, ""),
        ({}, ""),
    ],
)
def test_a_request_names_a_space(api: Service, asked: dict[str, str], prompt: str) -> None:
    space = space_of(api.services.stores.catalog, EmbeddingsRequest(input="x", **asked))  # type: ignore[arg-type]
    assert (space.model, space.prompt_name) == (asked.get("model", "fake"), prompt)
    assert json.loads(space.spec_json)["prompt"] == {"query": "find ", "document": "text "}.get(prompt, "")


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"input_type": "query", "prompt_name": "query"}, "input_type and prompt_name"),
        ({"input_type": "query", "task": "query"}, "input_type and task"),
        ({"prompt_name": "query", "task": "query"}, "prompt_name and task"),
    ],
)
def test_two_ways_to_choose_a_prompt_are_refused(api: Service, asked: dict[str, Any], names: str) -> None:
    with pytest.raises(BadInputError, match=f"{names} both choose a prompt; send only one of them"):
        space_of(api.services.stores.catalog, EmbeddingsRequest(input="x", **asked))


@pytest.mark.parametrize(
    ("task", "prompt"), [("retrieval.query", "query"), ("retrieval.passage", "document"), ("document", "document")]
)
def test_a_task_of_jina_chooses_the_prompt_for_it(api: Service, task: str, prompt: str) -> None:
    asked = EmbeddingsRequest(input="x", model="prompted", task=task)
    assert space_of(api.services.stores.catalog, asked).prompt_name == prompt


def test_a_prompt_with_the_name_of_a_task_goes_before_that_for_its_texts(api: Service) -> None:
    own = [replace(space(prompt=name), model="jina", prompt_name=name) for name in ("query", "retrieval.query")]
    catalog = api.services.stores.catalog
    catalog.publish(own, device="cpu")
    asked = EmbeddingsRequest(input="x", model="jina", task="retrieval.query")
    assert space_of(catalog, asked).prompt_name == "retrieval.query"


@pytest.mark.parametrize(
    ("model", "task"), [("fake", "retrieval.query"), ("prompted", "text-matching"), ("fake", "separation")]
)
def test_a_task_without_a_prompt_is_refused(api: Service, model: str, task: str) -> None:
    with pytest.raises(UnknownPromptError, match=f"has no prompt '{task}'"):
        space_of(api.services.stores.catalog, EmbeddingsRequest(input="x", model=model, task=task))


def test_a_request_that_departs_from_the_definition_names_another_space(api: Service) -> None:
    catalog = api.services.stores.catalog
    asked = EmbeddingsRequest(input="x", model="prompted", prompt_name="query", truncate_prompt_tokens=3)
    found = space_of(catalog, asked)
    assert found == catalog.space("prompted", "query").with_variant(Variant(max_tokens=3))
    with pytest.raises(BadInputError, match="model 'fake' reads at most 20 tokens, not 21"):
        space_of(catalog, EmbeddingsRequest(input="x", model="fake", max_tokens=21))


@pytest.mark.parametrize(
    ("asked", "kind"),
    [({"model": "nope"}, UnknownModelError), ({"model": "fake", "prompt_name": "nope"}, UnknownPromptError)],
)
def test_an_unknown_model_or_prompt_is_refused(api: Service, asked: dict[str, Any], kind: type[SemelError]) -> None:
    with pytest.raises(kind, match="'nope'"):
        space_of(api.services.stores.catalog, EmbeddingsRequest(input="x", **asked))
