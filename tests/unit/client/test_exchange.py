"""One request and its answer: errors come back as their classes, and only passing ones are tried again."""

from collections.abc import Iterator

import httpx
import pytest

from semel.client import calls
from semel.client.exchange import Exchange
from semel.errors import (
    BadInputError,
    ConflictError,
    ForbiddenError,
    InvalidTextError,
    NotFoundError,
    OverloadedError,
    SemelError,
    StorageFullError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    UnknownModelError,
)
from tests.support.remote import URL, Server, exchange_with


def get(exchange: Exchange) -> object:
    return exchange.once("GET", "/v1/models")


# What is sent


def test_the_key_is_sent_with_every_request(server: Server, exchange: Exchange) -> None:
    server.answers(json={})
    get(exchange)
    assert server.requests[0].headers["authorization"] == "Bearer key"
    assert str(server.requests[0].url) == f"{URL}/v1/models"


def test_without_a_key_there_is_no_header(server: Server) -> None:
    server.answers(json={})
    get(exchange_with(server, api_key=""))
    assert "authorization" not in server.requests[0].headers


# Answers


def test_an_answer_is_its_json_and_an_empty_one_is_none(server: Server, exchange: Exchange) -> None:
    server.answers(json={"id": "job_1"})
    server.answers(204)
    assert get(exchange) == {"id": "job_1"}
    assert get(exchange) is None


def test_a_report_is_read_whatever_its_status(server: Server, exchange: Exchange) -> None:
    server.answers(503, json={"parts": {"redis": "away"}})
    assert exchange.run(calls.ready()) == {"redis": "away"}


# Errors


def test_an_unknown_model_is_its_own_class_and_bad_input(server: Server, exchange: Exchange) -> None:
    server.refuses(404, "model_not_found", "there is no model named 'x' (known: fake); add it")
    with pytest.raises(UnknownModelError, match=r"no model named 'x' \(known: fake\)") as raised:
        get(exchange)
    assert isinstance(raised.value, BadInputError)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_input", BadInputError),
        (401, "invalid_api_key", UnauthorizedError),
        (403, "insufficient_scope", ForbiddenError),
        (404, "not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (507, "storage_full", StorageFullError),
        (500, "internal_error", SemelError),
    ],
)
def test_the_code_of_an_error_decides_its_class(
    server: Server, exchange: Exchange, status: int, code: str, kind: type[SemelError]
) -> None:
    server.refuses(status, code, "what, where and what to do")
    with pytest.raises(kind, match=r"^what, where and what to do$") as raised:
        get(exchange)
    assert type(raised.value) is kind


def test_the_position_of_a_bad_text_comes_back(server: Server, exchange: Exchange) -> None:
    server.refuses(400, "invalid_text", "text 7 is empty; leave it out")
    with pytest.raises(InvalidTextError) as raised:
        get(exchange)
    assert (raised.value.index, raised.value.why) == (7, "is empty; leave it out")


def test_an_error_of_the_rerank_route_has_the_shape_of_cohere(server: Server, exchange: Exchange) -> None:
    server.answers(404, json={"message": "there is no model named 'x'", "code": "model_not_found"})
    with pytest.raises(UnknownModelError, match="no model named 'x'"):
        get(exchange)


def test_an_overload_has_the_time_of_the_next_attempt(server: Server, exchange: Exchange) -> None:
    server.refuses(429, "rate_limit_exceeded", "too much work waits", retry_after="17")
    with pytest.raises(OverloadedError, match="too much work waits") as raised:
        get(exchange)
    assert raised.value.retry_after_s == 17.0


@pytest.mark.parametrize("value", [None, "Wed, 21 Oct 2026 07:28:00 GMT", "soon"])
def test_an_overload_without_seconds_asks_for_one(server: Server, exchange: Exchange, value: str | None) -> None:
    server.refuses(429, "rate_limit_exceeded", "too much", **({} if value is None else {"retry_after": value}))
    with pytest.raises(OverloadedError) as raised:
        get(exchange)
    assert raised.value.retry_after_s == 1.0


def test_a_proxy_without_a_server_behind_it_is_unavailable(server: Server, exchange: Exchange) -> None:
    server.answers(502, html="<html>Bad Gateway</html>" + "x" * 500, headers={"retry-after": "3"})
    with pytest.raises(UnavailableError, match=r"^HTTP status 502: <html>Bad Gateway</html>x{176}$") as raised:
        get(exchange)
    assert raised.value.retry_after_s == 3.0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadInputError), (401, UnauthorizedError), (403, ForbiddenError), (404, NotFoundError),
        (409, ConflictError), (413, BadInputError), (429, OverloadedError), (500, SemelError),
        (503, UnavailableError), (504, TimedOutError),
    ],
)  # fmt: skip
def test_without_a_code_the_status_decides(
    server: Server, exchange: Exchange, status: int, kind: type[SemelError]
) -> None:
    server.answers(status)
    with pytest.raises(kind, match=f"HTTP status {status}: an empty answer") as raised:
        get(exchange)
    assert type(raised.value) is kind


@pytest.mark.parametrize("body", [{"detail": "no"}, {"error": "no"}, ["no"], "no", {"error": {"message": "no"}}, None])
def test_json_of_another_shape_is_no_code(server: Server, exchange: Exchange, body: object) -> None:
    server.answers(503, json=body)
    with pytest.raises(UnavailableError, match="HTTP status 503: "):
        get(exchange)


# The network


def test_a_server_that_is_not_there_is_named_with_the_ways_out(server: Server, exchange: Exchange) -> None:
    server.fails(httpx.ConnectError("refused"))
    message = rf"no semel server answers at {URL} \(refused\); start one with 'semel up', or set SEMEL_URL"
    with pytest.raises(UnavailableError, match=message):
        get(exchange)
    with pytest.raises(UnavailableError, match=message):
        exchange.run(calls.ready())


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("slow")])
def test_a_late_answer_is_a_timeout(server: Server, exchange: Exchange, error: Exception) -> None:
    server.fails(error)
    with pytest.raises(TimedOutError, match=rf"{URL} did not answer in time \({type(error).__name__}\)"):
        get(exchange)


@pytest.mark.parametrize("url", ["127.0.0.1:8700", "ftp://127.0.0.1"])
def test_an_address_without_http_is_bad_input(url: str) -> None:
    exchange = Exchange(url, api_key="", timeout_s=1.0)
    with pytest.raises(BadInputError, match=f"'{url}' is not an http:// or https:// address"):
        exchange.json("GET", "/v1/models")
    exchange.close()


# Attempts


def test_a_server_that_starts_is_asked_again(server: Server, exchange: Exchange, pauses: list[float]) -> None:
    server.fails(httpx.ConnectError("refused"))
    server.refuses(503, "service_unavailable", "no worker yet")
    server.answers(json={"data": []})
    assert exchange.json("GET", "/v1/models") == {"data": []}
    assert len(server.requests) == 3
    assert len(pauses) == 2


def test_after_three_attempts_the_last_error_is_raised(server: Server, exchange: Exchange, pauses: list[float]) -> None:
    for at in ("first", "second", "third", "fourth"):
        server.refuses(503, "service_unavailable", at)
    with pytest.raises(UnavailableError, match="third"):
        exchange.json("GET", "/v1/models")
    assert len(server.requests) == 3


def test_the_same_body_is_sent_again(server: Server, exchange: Exchange, pauses: list[float]) -> None:
    server.refuses(503, "service_unavailable", "starting")
    server.answers(json={})
    exchange.json("POST", "/v1/embeddings", json={"input": ["a text"]})
    assert server.requests[0].content == server.requests[1].content != b""


@pytest.mark.parametrize(
    ("status", "code"), [(400, "invalid_input"), (404, "not_found"), (500, "internal_error"), (507, "storage_full")]
)
def test_an_error_that_stays_is_raised_at_once(
    server: Server, exchange: Exchange, pauses: list[float], status: int, code: str
) -> None:
    server.refuses(status, code, "it stays")
    with pytest.raises(SemelError, match="it stays"):
        exchange.json("GET", "/v1/models")
    assert (len(server.requests), pauses) == (1, [])


def test_a_streamed_body_is_sent_once(server: Server, exchange: Exchange, pauses: list[float]) -> None:
    server.refuses(503, "service_unavailable", "starting")
    with pytest.raises(UnavailableError):
        exchange.once("POST", "/v1/jobs", content=iter([b"a text"]))
    assert (len(server.requests), pauses) == (1, [])


def test_pauses_double_and_differ_between_clients(server: Server, exchange: Exchange, pauses: list[float]) -> None:
    server.refuses(503, "service_unavailable", "starting")
    for _ in range(10):
        with pytest.raises(UnavailableError):
            exchange.json("GET", "/v1/models")
    firsts, seconds = pauses[::2], pauses[1::2]
    assert all(0.375 <= pause <= 0.625 for pause in firsts)
    assert all(0.75 <= pause <= 1.25 for pause in seconds)
    assert len(set(firsts)) > 1


@pytest.mark.parametrize(("asked", "paused"), [("7", 7.0), ("0", 0.0), ("-5", 0.0), ("3600", 30.0)])
@pytest.mark.parametrize(("status", "code"), [(429, "rate_limit_exceeded"), (503, "service_unavailable")])
def test_the_pause_is_the_one_that_the_server_asks_for_and_at_most_half_a_minute(
    server: Server, exchange: Exchange, pauses: list[float], asked: str, paused: float, status: int, code: str
) -> None:
    server.refuses(status, code, "later", retry_after=asked)
    with pytest.raises(SemelError):
        exchange.json("GET", "/v1/models")
    assert pauses == [paused, paused]


# Streams


def test_a_stream_is_read_in_the_block(server: Server, exchange: Exchange) -> None:
    server.answers(content=iter([b"one ", b"two"]))
    with exchange.stream("GET", "/v1/jobs/job_1/results") as response:
        assert b"".join(response.iter_bytes()) == b"one two"


def test_an_error_in_place_of_a_stream_is_raised_by_its_code(server: Server, exchange: Exchange) -> None:
    server.refuses(404, "not_found", "there is no job 'job_1'")
    with (
        pytest.raises(NotFoundError, match="there is no job 'job_1'"),
        exchange.stream("GET", "/v1/jobs/job_1/results"),
    ):
        pytest.fail("the block ran")


def test_a_stream_that_breaks_is_unavailable(server: Server, exchange: Exchange) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one "
        raise httpx.RemoteProtocolError("peer closed connection")

    server.answers(content=broken())
    parts: list[bytes] = []

    def read() -> None:
        with exchange.stream("GET", "/v1/jobs/job_1/results") as response:
            parts.extend(response.iter_bytes())

    with pytest.raises(UnavailableError, match="peer closed connection"):
        read()
    assert parts == [b"one "]


def test_a_closed_exchange_sends_nothing(server: Server, exchange: Exchange) -> None:
    exchange.close()
    with pytest.raises(RuntimeError, match="closed"):
        get(exchange)
    assert server.requests == []


# Proxies


@pytest.mark.parametrize("proxy", [{"ALL_PROXY": "socks5://127.0.0.1:9"}, {"HTTP_PROXY": "http://127.0.0.1:9"}])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_this_machine_is_reached_directly(monkeypatch: pytest.MonkeyPatch, proxy: dict[str, str], url: str) -> None:
    for name, value in proxy.items():
        monkeypatch.setenv(name, value)
    exchange = Exchange(url, api_key="", timeout_s=1)
    assert exchange._http._mounts == {}
    exchange.close()


@pytest.mark.parametrize("proxy", [{"ALL_PROXY": "socks5://127.0.0.1:9"}, {"ALL_PROXY": "nonsense://x"}])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: dict[str, str]) -> None:
    for name, value in proxy.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInputError, match="the proxies in the environment cannot be used"):
        Exchange("http://elsewhere.example:1", api_key="", timeout_s=1)
