"""API keys: read, compared, and asked for by every route."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from semel.api.edge.access import may
from semel.api.edge.foreign_pages import OwnNames
from semel.api.edge.keys import ApiKey, Scope, file_line, find_key, load_keys
from semel.cli.main import app
from semel.errors import BadInputError, UnavailableError
from semel.settings import load_settings
from semel.values.address import is_loopback
from tests.support.answers import dialect_of, message_of
from tests.support.service import Service, service


def scope_of(keys: tuple[ApiKey, ...], presented: str) -> Scope | None:
    found = find_key(keys, presented)
    return None if found is None else found.scope


# Reading keys


def test_plain_keys_with_and_without_a_scope() -> None:
    settings = load_settings(api_keys="sk-all, sk-look:read,sk-work:submit")
    keys = load_keys(settings)
    allowed = [scope_of(keys, key) for key in ("sk-all", "sk-look", "sk-work", "sk-look:read", "sk-", "")]
    assert allowed == [Scope.ADMIN, Scope.READ, Scope.SUBMIT, None, None, None]
    assert "sk-all" not in repr(settings)
    assert "sk-all" not in repr(keys)


def test_a_key_may_have_a_share_of_the_queue(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{file_line('sk-filed', 'submit')} 0.5")
    keys = load_keys(load_settings(api_keys="sk-big:submit:4,sk-plain:submit", api_keys_file=tmp_path / "keys"))
    assert [key.share for key in keys] == [4.0, 1.0, 0.5]
    assert len({key.submitter.owner for key in keys}) == 3
    assert find_key(keys, "sk-big") is keys[0]


@pytest.mark.parametrize("share", ["0", "0.0", "1.2.3"])
def test_a_share_must_be_a_number_greater_than_0(share: str) -> None:
    with pytest.raises(BadInputError, match="the share of a key must be a number greater than 0"):
        load_keys(load_settings(api_keys=f"sk:submit:{share}"))


def test_the_name_of_a_scope_may_be_in_capitals() -> None:
    assert load_keys(load_settings(api_keys="sk:READ"))[0].scope is Scope.READ


def test_a_made_key_works_through_its_line_in_the_file(tmp_path: Path) -> None:
    lines = CliRunner().invoke(app, ["key", "--scope", "read"]).output.splitlines()
    key, line = (text.split(":", 1)[1].strip() for text in lines)
    file = tmp_path / "keys"
    file.write_text(f"# the night job\n\n{line}  # made today\n")
    keys = load_keys(load_settings(api_keys_file=file))
    assert keys == (ApiKey(hashlib.sha256(key.encode()).digest(), Scope.READ),)
    assert scope_of(keys, key) is Scope.READ


def test_keys_of_the_setting_and_of_the_file_add_up(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(file_line("sk-filed", "submit"))
    keys = load_keys(load_settings(api_keys="sk-set:read", api_keys_file=tmp_path / "keys"))
    assert [scope_of(keys, key) for key in ("sk-set", "sk-filed")] == [Scope.READ, Scope.SUBMIT]


def test_a_line_for_an_unknown_scope_is_refused() -> None:
    with pytest.raises(BadInputError, match="--scope: the scope of a key must be one of read, submit, admin"):
        file_line("sk", "everything")


@pytest.mark.parametrize("line", ["sk-plain read", "abcd read", "00" * 32, f"{'00' * 32} everything"])
def test_a_line_that_is_no_key_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\n{line}\n")
    with pytest.raises(BadInputError, match="line 2"):
        load_keys(load_settings(api_keys_file=file))


def test_the_error_about_a_scope_does_not_quote_what_may_be_a_key() -> None:
    with pytest.raises(BadInputError, match="one of read, submit, admin") as caught:
        load_keys(load_settings(api_keys="sk:secret"))
    assert "secret" not in str(caught.value)


def test_removing_every_key_does_not_open_the_server(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# revoked\n")
    for settings in (load_settings(api_keys_file=file), load_settings(api_keys=" , ")):
        with pytest.raises(BadInputError, match="holds no key"):
            load_keys(settings)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(BadInputError, match="cannot be read"):
        load_keys(load_settings(api_keys_file=tmp_path / "keys"))


@pytest.mark.parametrize(("needed", "allowed"), [(Scope.READ, True), (Scope.SUBMIT, True), (Scope.ADMIN, False)])
def test_a_scope_includes_those_before_it(needed: Scope, allowed: bool) -> None:
    request = SimpleNamespace(state=SimpleNamespace(scope=Scope.SUBMIT))
    assert may(request, needed) is allowed  # type: ignore[arg-type]


# Addresses without keys


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_only_loopback_addresses_need_no_keys(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_serve_refuses_a_public_address_without_keys() -> None:
    result = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0"])
    assert isinstance(result.exception, BadInputError)
    assert "SEMEL_API_KEYS" in str(result.exception)


@pytest.mark.parametrize(
    ("host", "allowed", "names", "any_name"),
    [
        ("127.0.0.1", "", set(), False),
        ("0.0.0.0", "", set(), True),
        ("0.0.0.0", "api, Semel.Example", {"api", "semel.example"}, False),
        ("127.0.0.1", "semel.example", {"semel.example"}, False),
    ],
)
def test_a_server_knows_its_names(host: str, allowed: str, names: set[str], any_name: bool) -> None:
    assert OwnNames.of(load_settings(host=host, allowed_hosts=allowed)) == OwnNames(frozenset(names), any=any_name)


# Every route

KEYS = {Scope.READ: "sk-look", Scope.SUBMIT: "sk-work", Scope.ADMIN: "sk-all"}

ROUTES: dict[Scope | None, list[str]] = {
    None: ["GET /health/live", "GET /health/ready", "GET /health"],
    Scope.READ: [
        "GET /v1/models", "GET /v1/cache", "GET /v1/events", "GET /v1/inventory", "GET /metrics", "GET /info",
        "GET /v1/syncs", "GET /v1/syncs/{name}",
        "GET /health/backends", "GET /v1/jobs", "GET /v1/jobs/{job_id}", "GET /v1/jobs/{job_id}/chunks",
        "GET /v1/jobs/{job_id}/failed", "GET /v1/jobs/{job_id}/events", "GET /v1/jobs/{job_id}/results",
        "GET /v1/files", "GET /v1/files/{file_id}",
        "GET /v1/batches", "GET /v1/batches/{batch_id}",
        "GET /v1/models/{model}", "GET /models", "GET /api/tags", "POST /api/show", "GET /api/version",
    ],
    Scope.SUBMIT: [
        "POST /v1/embeddings", "POST /v1/rerank", "POST /v2/rerank", "POST /v2/embed", "POST /", "POST /embed",
        "POST /rerank", "POST /similarity", "POST /tokenize", "POST /v1/jobs", "POST /v1/jobs/estimate",
        "POST /v1/jobs/{job_id}/cancel", "POST /v1/jobs/{job_id}/retry", "DELETE /v1/jobs/{job_id}",
        "POST /v1/files", "DELETE /v1/files/{file_id}", "GET /v1/files/{file_id}/content", "POST /v1/batches",
        "POST /v1/batches/{batch_id}/cancel", "POST /v1/embed", "POST /embeddings", "POST /score", "POST /v1/score",
        "POST /api/embed", "POST /api/embeddings", "POST /api/v1/embed", "POST /api/v1/embed/", "POST /api/v1/rerank",
        "POST /api/v1/rerank/", "POST /embed_sparse", "POST /predict", "POST /classify",
        "POST /v1/uploads", "POST /v1/uploads/{upload_id}/parts", "POST /v1/uploads/{upload_id}/complete",
        "POST /v1/uploads/{upload_id}/cancel",
    ],
    Scope.ADMIN: ["POST /v1/cache/prune", "POST /v1/cache/verify", "PUT /v1/cache/vectors", "GET /v1/keys",
                  "POST /v1/syncs/{name}/cutover", "POST /v1/syncs/{name}/rollback"],
}  # fmt: skip
"""The scope that each route needs."""

GUARDED = [(scope, route) for scope, routes in ROUTES.items() for route in routes if scope is not None]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API with a key of each scope."""
    keys = "sk-all,sk-work:submit,sk-look:read"
    with service(tmp_path_factory.mktemp("guarded"), api_keys=keys) as running:
        yield running


def ask(api: Service, route: str, key: str | None) -> httpx.Response:
    method, path = route.split(" ")
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return api.http.request(method, path.replace("{", "").replace("}", ""), headers=headers)


def test_the_table_of_scopes_names_every_route(guarded: Service) -> None:
    paths = guarded.app.openapi()["paths"]
    known = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {route for routes in ROUTES.values() for route in routes} == known


@pytest.mark.parametrize(("scope", "route"), GUARDED)
def test_a_route_refuses_a_caller_without_a_key_and_a_key_with_too_small_a_scope(
    guarded: Service, scope: Scope, route: str
) -> None:
    without = ask(guarded, route, None)
    assert (without.status_code, without.headers["www-authenticate"]) == (401, "Bearer")
    assert "Authorization: Bearer KEY" in message_of(without)
    for smaller in Scope:
        if smaller < scope:
            refused = ask(guarded, route, KEYS[smaller])
            assert refused.status_code == 403
            assert f"has the scope '{smaller.name.lower()}'; this request needs '{scope.name.lower()}'" in message_of(
                refused
            )


@pytest.mark.parametrize(
    ("scope", "route"),
    [(scope, route) for scope, route in GUARDED if route not in ("GET /v1/events", "GET /v1/inventory")],
)
def test_a_route_accepts_every_key_with_enough_scope(guarded: Service, scope: Scope, route: str) -> None:
    for enough in Scope:
        if enough >= scope:
            assert ask(guarded, route, KEYS[enough]).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/jobs", "/v1/files", "/rerank"])
def test_a_body_is_not_read_before_its_key_is_known(guarded: Service, path: str) -> None:
    async def receive() -> None:
        raise AssertionError("the body was read")

    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "server": ("127.0.0.1", 80), "scheme": "http",
    }  # fmt: skip
    asyncio.run(guarded.app(scope, receive, send))
    assert answers[0]["status"] == 401


@pytest.mark.parametrize("route", [*(ROUTES[None]), "GET /docs", "GET /openapi.json"])
def test_probes_and_the_documentation_need_no_key(guarded: Service, route: str) -> None:
    assert ask(guarded, route, None).status_code == 200


def test_the_page_needs_no_key(guarded: Service) -> None:
    assert guarded.http.get("/").status_code == guarded.http.get("/page/app.js").status_code == 200


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/embeddings", "openai"),
        ("/v1/rerank", "cohere"),
        ("/v2/embed", "cohere"),
        ("/embed", "tei"),
        ("/api/embed", "ollama"),
    ],
)
@pytest.mark.parametrize("key", [None, "sk-wrong", "sk-look"])
def test_a_refusal_has_the_shape_of_the_dialect(guarded: Service, path: str, dialect: str, key: str | None) -> None:
    refused = ask(guarded, f"POST {path}", key)
    assert refused.status_code == (403 if key == "sk-look" else 401)
    assert dialect_of(refused) == dialect


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer sk-look"}, 200),
        ({"authorization": "bearer   sk-look "}, 200),
        ({"x-api-key": "sk-look"}, 200),
        ({"authorization": "Basic c2s6", "x-api-key": "sk-look"}, 200),
        ({"authorization": "Bearer sk-wrong", "x-api-key": "sk-look"}, 401),
        ({"authorization": "sk-look"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "sk-wrong"}, 401),
        ({"authorization": "Bearer sk-look:read"}, 401),
    ],
)
def test_a_key_comes_as_a_bearer_token_or_as_x_api_key(guarded: Service, headers: dict[str, str], status: int) -> None:
    answer = guarded.http.get("/v1/jobs", headers=headers)
    assert answer.status_code == status
    assert status == 200 or answer.json()["error"]["code"] == "invalid_api_key"


def test_an_unknown_key_is_called_unknown_and_not_repeated(guarded: Service) -> None:
    message = message_of(ask(guarded, "GET /v1/jobs", "sk-secret"))
    assert "this server does not know this API key" in message
    assert "sk-secret" not in message


def test_with_a_key_another_website_may_ask(guarded: Service) -> None:
    headers = {"authorization": "Bearer sk-work", "sec-fetch-site": "cross-site", "host": "website.example"}
    assert guarded.http.post("/v1/embeddings", json={"input": "x"}, headers=headers).status_code == 200


def test_a_key_that_may_only_read_sees_no_texts(guarded: Service) -> None:
    worker, reader = ({"authorization": f"Bearer {KEYS[scope]}"} for scope in (Scope.SUBMIT, Scope.READ))
    job = guarded.http.post("/v1/jobs", json={"input": ["fine", "a poison secret"]}, headers=worker).json()
    failed = f"/v1/jobs/{job['id']}/failed"
    shown = [guarded.http.get(failed, headers=headers).json()["data"][0]["text"] for headers in (worker, reader)]
    assert shown == ["a poison secret", None]


def test_a_key_that_may_only_read_downloads_no_input_of_a_batch(guarded: Service) -> None:
    worker, reader = ({"authorization": f"Bearer {KEYS[scope]}"} for scope in (Scope.SUBMIT, Scope.READ))
    form = {"data": {"purpose": "batch"}, "files": {"file": b"secret"}}
    stored = guarded.http.post("/v1/files", headers=worker, **form).json()  # type: ignore[arg-type]
    content = f"/v1/files/{stored['id']}/content"
    assert guarded.http.get(content, headers=worker).text == "secret"
    refused = guarded.http.get(content, headers=reader)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
    assert guarded.http.get(content.removesuffix("/content"), headers=reader).status_code == 200


@pytest.mark.parametrize("fmt", ["ndjson", "arrow"])
def test_a_key_that_may_only_read_gets_results_without_the_other_fields_of_rows(guarded: Service, fmt: str) -> None:
    worker, reader = ({"authorization": f"Bearer {KEYS[scope]}"} for scope in (Scope.SUBMIT, Scope.READ))
    rows = [{"id": 7, "text": "a title", "body": "the merger is off"}, {"text": "another"}]
    job = guarded.http.post("/v1/jobs", json={"input": rows}, headers=worker).json()
    results = f"/v1/jobs/{job['id']}/results?format={fmt}"
    assert b"merger" in guarded.http.get(results, headers=worker).content
    for more in ("", "&limit=1"):  # read at once, and streamed
        seen = guarded.http.get(results + more, headers=reader)
        assert seen.status_code == 200
        assert b"merger" not in seen.content
        assert b"7" in seen.content, "the id stays"


def test_readiness_gives_its_reasons_to_those_with_a_key(guarded: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise UnavailableError("PostgreSQL at db.internal:5432 does not answer")

    monkeypatch.setattr(type(guarded.services), "pings", property(lambda _: {"database": fails}))
    with_key = guarded.http.get("/health/ready", headers={"authorization": "Bearer sk-look"})
    assert "db.internal" in with_key.json()["parts"]["database"]
    for path in ("/health/ready", "/health"):
        for headers in ({}, {"authorization": "Bearer sk-unknown"}):
            answer = guarded.http.get(path, headers=headers)
            assert answer.status_code == 503
            assert "db.internal" not in answer.text


KEYS_THAT_END = {"sk-old": "2020-01-01", "sk-new": "2999-01-01"}


def _not_there() -> None:
    raise UnavailableError("db.internal does not answer")


def test_a_key_that_has_expired_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [file_line(key, "admin", [f"expires={day}"]) for key, day in KEYS_THAT_END.items()]
    (tmp_path / "keys").write_text("\n".join(lines))
    with service(tmp_path, api_keys_file=tmp_path / "keys") as api:
        old, new = (
            api.http.get("/v1/jobs", headers={"authorization": f"Bearer {key}"}) for key in ("sk-old", "sk-new")
        )
        monkeypatch.setattr(type(api.services), "pings", property(lambda _: {"database": _not_there}))
        ready = api.http.get("/health/ready", headers={"authorization": "Bearer sk-old"})
    assert (old.status_code, new.status_code) == (401, 200)
    assert ready.json()["parts"] == {"database": "not ok"}
    assert "has expired" in old.json()["error"]["message"]
