"""Requests and answers on their way through JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from semel.tasks.queue.message import Answer, Request, RequestMessage, Row
from semel.values.text import ItemError, Pair

REQUEST = Request(id="r1", texts=["one", "two"], sent_at=12.5, expires_at=72.5)

MESSAGE = RequestMessage(
    reply_to="bell",
    model="m",
    prompt_name="query",
    fingerprint="ab" * 32,
    requests=[REQUEST, replace(REQUEST, id="r2")],
)


def through_json(message: RequestMessage) -> RequestMessage:
    """As the worker receives it: Celery sends JSON."""
    return RequestMessage.from_message(json.loads(json.dumps(message.to_message())))


def test_a_message_arrives_as_it_was_sent() -> None:
    assert through_json(MESSAGE) == MESSAGE
    changed = replace(
        MESSAGE, reading="spell", passed_on=3, variant='{"max_tokens": 5}', requests=[replace(REQUEST, deaths=1)]
    )
    assert through_json(changed) == changed


def test_pairs_arrive_as_pairs_and_not_as_lists() -> None:
    sent = replace(MESSAGE, requests=[replace(REQUEST, texts=[Pair("question", "document"), "text"])])
    ((pair, text),) = (request.texts for request in through_json(sent).requests)
    assert isinstance(pair, Pair)
    assert (pair.query, pair.document, text) == ("question", "document", "text")


def test_fields_of_a_later_version_are_ignored() -> None:
    message = json.loads(json.dumps(MESSAGE.to_message()))
    message["colour"] = "blue"
    message["requests"][1]["weight"] = 3
    assert RequestMessage.from_message(message) == MESSAGE


def test_a_request_costs_little_more_than_its_texts() -> None:
    many = replace(MESSAGE, requests=[replace(REQUEST, id="r" * 32, texts=[])] * 100)
    assert len(json.dumps(many.to_message())) < 100 * 140


def test_the_size_of_a_request_is_the_characters_of_its_texts() -> None:
    assert replace(REQUEST, texts=["four", Pair("to", "and"), ""]).size == 9


def test_flower_shows_no_text() -> None:
    shown = replace(MESSAGE, requests=[replace(REQUEST, texts=["a secret"])] * 3).shown
    assert "secret" not in shown
    assert shown == "(3 requests, 3 texts, the first is r1)"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(),
        Answer(computed=[0, 2], coalesced=[1], seconds=0.25),
        Answer(errors={3: ItemError("invalid_vector", "the model returns NaN"), 11: ItemError("backend_error", "no")}),
        Answer(error=ItemError("model_not_loadable", "no files")),
        Answer(readings=[[3, True], [1, False]]),
        Answer(computed=[1], rows={1: Row(np.array([0.1, -0.0, 3e-39], "<f4").tobytes(), 7, True)}),
    ],
    ids=["empty", "outcomes", "errors", "error", "readings", "rows"],
)
def test_an_answer_arrives_as_it_was_sent(answer: Answer) -> None:
    assert Answer.from_json(answer.to_json()) == answer
    assert Answer.from_json(answer.to_json().encode()) == answer, "Redis returns bytes"


def test_an_answer_without_its_rows_has_the_rest() -> None:
    answer = Answer(computed=[0], rows={0: Row(b"\0\0\x80?", 3, False)}, seconds=0.5)
    assert Answer.from_json(answer.to_json(with_rows=False)) == Answer(computed=[0], seconds=0.5)


def test_the_answer_of_an_older_worker_has_no_rows() -> None:
    assert Answer.from_json("[[0], [], {}, null, [], 0.5]") == Answer(computed=[0], seconds=0.5)
