"""`semel key`."""

import hashlib

import pytest

from tests.support.cli import Cli


def printed(cli: Cli, *options: str) -> tuple[str, str, str]:
    """The key, its hash and its scope, as the command prints them."""
    key_line, file_line = cli("key", *options).out.splitlines()
    digest, scope = file_line.partition(":")[2].split()
    return key_line.partition(":")[2].strip(), digest, scope


def test_the_line_for_the_file_holds_the_hash_of_the_key(cli: Cli) -> None:
    key, digest, scope = printed(cli)
    assert key.startswith("sk-semel-")
    assert digest == hashlib.sha256(key.encode()).hexdigest()
    assert scope == "submit"


def test_every_key_is_another_one(cli: Cli) -> None:
    assert printed(cli)[0] != printed(cli)[0]


@pytest.mark.parametrize("scope", ["read", "submit", "admin"])
def test_the_scope_is_written_into_the_line(cli: Cli, scope: str) -> None:
    assert printed(cli, "--scope", scope)[2] == scope


def test_an_unknown_scope_is_refused(cli: Cli) -> None:
    done = cli("key", "--scope", "everything")
    assert (done.code, done.out) == (2, "")
    assert "--scope" in done.error
