"""A server without keys accepts its own page and programs, and no other website."""

from typing import Any

import pytest
from fastapi import Request

from semel.api.edge.foreign_pages import OwnNames, refuse_foreign_pages
from semel.errors import ForeignPageError
from tests.support.answers import dialect_of, message_of
from tests.support.service import Service

LOCAL = OwnNames(frozenset(), any=False)


def request(method: str = "POST", **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": raw}
    return Request(scope)


def passes(own: OwnNames, asked: Request) -> bool:
    try:
        refuse_foreign_pages(asked, own)
    except ForeignPageError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:8700", "localhost", "localhost:8700", "LOCALHOST", "semel.localhost:1", "[::1]:8700",
     "10.0.0.7", "203.0.113.9:80"],
)  # fmt: skip
def test_addresses_and_localhost_name_the_server(host: str) -> None:
    assert passes(LOCAL, request(host=host))


@pytest.mark.parametrize(
    "host",
    ["website.example", "website.example:8700", "localhost.website.example", "notlocalhost", "0x7f000001",
     "127.0.0.1.website.example", "under_scored.example", "[::", "[", ":8700", "user@website.example"],
)  # fmt: skip
def test_any_other_name_is_refused(host: str) -> None:
    with pytest.raises(ForeignPageError, match="SEMEL_ALLOWED_HOSTS"):
        refuse_foreign_pages(request("GET", host=host), LOCAL)


def test_a_configured_name_is_accepted_in_any_case() -> None:
    own = OwnNames(frozenset({"semel.example"}), any=False)
    assert passes(own, request(host="Semel.Example:443"))
    assert not passes(own, request(host="website.example"))


def test_a_public_server_without_configured_names_accepts_every_name() -> None:
    assert passes(OwnNames(frozenset(), any=True), request(host="whatever.example"))


def test_a_public_server_still_refuses_pages_of_other_websites() -> None:
    own = OwnNames(frozenset(), any=True)
    assert not passes(own, request(host="semel.example", sec_fetch_site="cross-site"))


def test_a_program_without_a_host_header_passes() -> None:
    assert passes(LOCAL, request())


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_own_page_and_a_typed_address_pass(site: str) -> None:
    assert passes(LOCAL, request(host="localhost", sec_fetch_site=site))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_page_of_another_website_cannot_send_a_request(site: str, method: str) -> None:
    with pytest.raises(ForeignPageError, match="a page of another website"):
        refuse_foreign_pages(request(method, host="localhost", sec_fetch_site=site), LOCAL)


@pytest.mark.parametrize(
    ("method", "destination", "followed"),
    [
        ("GET", "document", True),
        ("HEAD", "document", True),
        ("GET", "iframe", False),
        ("GET", "image", False),
        ("GET", "empty", False),
        ("POST", "document", False),  # a form
    ],
)
def test_a_link_may_be_followed_but_nothing_loaded(method: str, destination: str, followed: bool) -> None:
    asked = request(method, host="localhost", sec_fetch_site="cross-site", sec_fetch_dest=destination)
    assert passes(LOCAL, asked) is followed


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://localhost:8700", True),
        ("https://localhost:8700", True),  # a proxy may speak TLS
        ("http://localhost:9999", False),
        ("http://website.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_a_browser_without_fetch_metadata_is_judged_by_its_origin(origin: str, own: bool) -> None:
    assert passes(LOCAL, request(host="localhost:8700", origin=origin)) is own


def test_fetch_metadata_counts_more_than_the_origin() -> None:
    assert passes(LOCAL, request(host="localhost", sec_fetch_site="same-origin", origin="http://website.example"))


@pytest.mark.parametrize(("path", "dialect"), [("/v1/jobs", "openai"), ("/v1/rerank", "cohere"), ("/embed", "tei")])
def test_the_api_refuses_a_website_in_the_shape_of_the_dialect(api: Service, path: str, dialect: str) -> None:
    answer = api.http.post(path, json={}, headers={"sec-fetch-site": "cross-site"})
    assert (answer.status_code, dialect_of(answer)) == (403, dialect)
    assert "set SEMEL_API_KEYS" in message_of(answer)


def test_health_the_page_and_its_scripts_answer_a_website(api: Service) -> None:
    for path in ("/health/live", "/health/ready", "/", "/page/app.js"):
        assert api.http.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200
