"""What direct routes read: JSON bodies and query parameters, with errors that name the field."""

import asyncio
import json
import threading
from typing import Any

import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from semel.api.edge.parsing import TooManyValuesError, parse_json
from semel.api.edge.reading import read_json, read_query, shows_json, shows_query
from semel.errors import BadInputError
from tests.support.answers import message_of
from tests.support.service import Service


class Body(BaseModel):
    text: str
    threads: list[int] = Field(default_factory=lambda: [threading.get_ident()])


class Page(BaseModel):
    limit: int = Field(default=20, ge=1, description="The number of rows.")


def request(body: bytes = b"", kind: str | None = "application/json", query: bytes = b"") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if kind is None else [(b"content-type", kind.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": query}, receive)


def read(body: bytes, kind: str | None = "application/json") -> Body:
    return asyncio.run(read_json(request(body, kind), Body))


@pytest.mark.parametrize(
    "kind", [None, "application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json"]
)
def test_json_is_read_and_a_body_without_a_content_type_is_json(kind: str | None) -> None:
    assert read('{"text": "大"}'.encode(), kind).text == "大"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_another_content_type_is_named(kind: str) -> None:
    with pytest.raises(BadInputError, match=f"unsupported Content-Type '{kind.partition(';')[0]}'"):
        read(b'{"text": "x"}', kind)


@pytest.mark.parametrize(
    ("body", "where"),
    [(b"{}", ("body", "text")), (b'{"text": 1}', ("body", "text")), (b"{", ("body",)), (b"", ("body",))],
)
def test_an_error_names_its_place(body: bytes, where: tuple[str, ...]) -> None:
    with pytest.raises(RequestValidationError) as failed:
        read(body)
    assert failed.value.errors()[0]["loc"] == where


def test_a_lone_surrogate_is_left_to_the_check_of_texts() -> None:
    assert read(b'{"text": "\\ud800"}').text == "\ud800"


def test_a_large_body_is_parsed_in_another_thread() -> None:
    here = threading.get_ident()
    assert read(b'{"text": "x"}').threads == [here]
    assert read(json.dumps({"text": "x" * 70_000}).encode()).threads != [here]


def test_a_query_is_read_and_an_error_names_its_parameter() -> None:
    assert read_query(request(query=b"limit=3"), Page).limit == 3
    with pytest.raises(RequestValidationError) as failed:
        read_query(request(query=b"limit=0"), Page)
    assert failed.value.errors()[0]["loc"] == ("query", "limit")


def test_the_document_shows_bodies_and_parameters() -> None:
    assert shows_json(Body)["requestBody"]["content"]["application/json"]["schema"]["required"] == ["text"]
    (limit,) = shows_query(Page)
    assert (limit["name"], limit["in"], limit["description"]) == ("limit", "query", "The number of rows.")
    assert (limit["schema"]["default"], limit["schema"]["minimum"]) == (20, 1)


def test_a_parameter_of_a_download_that_is_unknown_is_refused_by_name(api: Service) -> None:
    answer = api.http.get("/v1/jobs/x/results?fromat=npy")
    assert (answer.status_code, message_of(answer).partition(":")[0]) == (400, "fromat")


def lists(count: int) -> bytes:
    return b'{"text": "x", "threads": [%s[]]}' % (b"[]," * count)


def keys(count: int) -> bytes:
    return b'{"text": "x", %s}' % b",".join(b'"%x": 1' % i for i in range(count))


@pytest.mark.parametrize("body", [lists(600_000), keys(310_000)], ids=["lists", "keys"])
@pytest.mark.parametrize("path", ["/v1/embeddings", "/similarity"], ids=["a direct route", "a route of FastAPI"])
def test_a_body_of_very_many_values_is_refused_before_it_is_parsed(api: Service, body: bytes, path: str) -> None:
    answer = api.http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)  # TEI's status of a bad request
    assert "lists and objects" in message_of(answer)
    assert "NDJSON" in message_of(answer)


@pytest.mark.parametrize("inside", ["%s", '{"a": %s}', '[1, {"b": [%s]}]'])
def test_an_object_of_very_many_keys_is_refused_before_each_of_them_is_an_error(inside: str) -> None:
    def body(count: int) -> bytes:
        return (inside % json.dumps({f"key {i}": i for i in range(count)})).encode()

    with pytest.raises(TooManyValuesError, match="an object with more than 1,000 keys"):
        parse_json(body(1001))
    assert parse_json(body(1000)) == json.loads(body(1000))


def test_keys_and_brackets_within_texts_are_no_keys_and_few_lists() -> None:
    text = json.dumps([{"id": i, "tags": []} for i in range(60_000)])
    assert read(json.dumps({"text": text}).encode()).text == text


@pytest.mark.parametrize(
    ("body", "parsed"),
    [
        (b'{"a": [1, 2.5, "x"]}', {"a": [1, 2.5, "x"]}),
        (b'{"a": Infinity}', {"a": float("inf")}),
        (b'"\\ud800"', "\ud800"),
        ('"大"'.encode("utf-16"), "大"),
        (b"1e400", float("inf")),
    ],
)
def test_what_the_quick_parser_refuses_is_read_by_the_other_one(body: bytes, parsed: object) -> None:
    assert parse_json(body) == parsed


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": }', b"\xff\xfe\xfd"])
def test_what_is_not_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(body)


def test_a_large_body_with_an_error_is_not_parsed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("it was parsed again"))
    with pytest.raises(json.JSONDecodeError):
        parse_json(lists(100_000) + b"}")
