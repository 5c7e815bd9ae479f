"""Requests and answers on their way through JSON."""

import json
from dataclasses import replace

import pytest

from semel.tasks.queue.message import Answer, Request
from semel.values.text import ItemError, Pair

REQUEST = Request(
    id="r1",
    reply_to="bell",
    model="m",
    prompt_name="query",
    fingerprint="ab" * 32,
    texts=["one", "two"],
    sent_at=12.5,
)


def through_json(request: Request) -> Request:
    """As the worker receives it: Celery sends JSON."""
    return Request.from_message(json.loads(json.dumps(request.to_message())))


def test_a_request_arrives_as_it_was_sent() -> None:
    assert through_json(REQUEST) == REQUEST
    changed = replace(REQUEST, reading="spell", passed_on=3)
    assert through_json(changed) == changed


def test_pairs_arrive_as_pairs_and_not_as_lists() -> None:
    (pair, text) = through_json(replace(REQUEST, texts=[Pair("question", "document"), "text"])).texts
    assert isinstance(pair, Pair)
    assert (pair.query, pair.document, text) == ("question", "document", "text")


def test_a_request_costs_little_more_than_its_texts() -> None:
    assert len(json.dumps(replace(REQUEST, texts=[]).to_message())) < 300


def test_flower_shows_no_text() -> None:
    shown = replace(REQUEST, texts=["a secret"]).shown
    assert "secret" not in shown
    assert "1 texts" in shown
    assert "r1" in shown


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        Answer(computed=[0, 2], coalesced=[1], seconds=0.25),
        Answer(errors={3: ItemError("invalid_vector", "the model returns NaN"), 11: ItemError("backend_error", "no")}),
        Answer(error=ItemError("model_not_loadable", "no files")),
        Answer(readings=[[3, True], [1, False]]),
    ],
    ids=["empty", "outcomes", "errors", "error", "readings"],
)
def test_an_answer_arrives_as_it_was_sent(answer: Answer) -> None:
    assert Answer.from_json(answer.to_json()) == answer
    assert Answer.from_json(answer.to_json().encode()) == answer, "Redis returns bytes"
