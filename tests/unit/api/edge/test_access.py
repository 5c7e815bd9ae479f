"""API keys: read, compared, refused."""

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semel.api.edge.access import ApiKey, Scope, load_keys, scope_of
from semel.api.edge.foreign_pages import OwnNames, is_loopback
from semel.cli.main import app
from semel.errors import BadInputError
from semel.settings import load_settings


def test_plain_keys_with_and_without_a_scope() -> None:
    settings = load_settings(api_keys="sk-all, sk-look:read,sk-work:submit")
    keys = load_keys(settings)
    allowed = [scope_of(keys, key) for key in ("sk-all", "sk-look", "sk-work", "sk-look:read", "sk-", "")]
    assert allowed == [Scope.ADMIN, Scope.READ, Scope.SUBMIT, None, None, None]
    assert "sk-all" not in repr(settings)
    assert "sk-all" not in repr(keys)


def test_a_made_key_works_through_its_line_in_the_file(tmp_path: Path) -> None:
    lines = CliRunner().invoke(app, ["key", "--scope", "read"]).output.splitlines()
    key, line = (text.split(":", 1)[1].strip() for text in lines)
    file = tmp_path / "keys"
    file.write_text(f"# the night job\n\n{line}  # made today\n")
    keys = load_keys(load_settings(api_keys_file=file))
    assert keys == (ApiKey(hashlib.sha256(key.encode()).digest(), Scope.READ),)
    assert scope_of(keys, key) is Scope.READ


@pytest.mark.parametrize("line", ["sk-plain read", "abcd read", "00" * 32, f"{'00' * 32} everything"])
def test_a_line_that_is_no_key_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"\n{line}\n")
    with pytest.raises(BadInputError, match="line 2"):
        load_keys(load_settings(api_keys_file=file))


def test_what_may_be_a_key_is_not_told() -> None:
    with pytest.raises(BadInputError, match="one of read, submit, admin") as caught:
        load_keys(load_settings(api_keys="sk:secret"))
    assert "secret" not in str(caught.value)


def test_keys_that_were_all_taken_out_do_not_open_the_server(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# revoked\n")
    for settings in (load_settings(api_keys_file=file), load_settings(api_keys=" , ")):
        with pytest.raises(BadInputError, match="holds no key"):
            load_keys(settings)


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(BadInputError, match="cannot be read"):
        load_keys(load_settings(api_keys_file="/nowhere/keys"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_only_loopback_addresses_go_without_keys(host: str, loopback: bool) -> None:
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
