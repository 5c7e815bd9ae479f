"""`semel serve`: which addresses it listens on, and which it refuses. The event loop never starts."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cli import Cli


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """The sockets on which a server would have run."""
    bound: list[socket.socket] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda _, sockets: bound.extend(sockets))
    monkeypatch.setattr("semel.cli.work.serve.configure_logs", lambda **_: None)
    yield bound
    for sock in bound:
        sock.close()


def test_it_listens_on_this_machine_unless_told_otherwise(cli: Cli, listening: list[socket.socket]) -> None:
    assert cli("serve", "--port", "0").code == 0
    (sock,) = listening
    assert sock.getsockname()[0] == "127.0.0.1"
    assert sock.proto == socket.IPPROTO_TCP, "or asyncio keeps Nagle's algorithm on"


def test_host_and_port_come_from_the_settings_too(
    cli: Cli, listening: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    monkeypatch.setenv("SEMEL_PORT", str(free))
    monkeypatch.setenv("SEMEL_HOST", "127.0.0.2")
    assert cli("serve").code == 0
    assert listening[0].getsockname() == ("127.0.0.2", free)


def test_an_open_address_without_keys_is_refused(cli: Cli, listening: list[socket.socket]) -> None:
    done = cli("serve", "--host", "0.0.0.0", "--port", "0")
    assert done.code == 2
    assert done.error.startswith("other machines can reach 0.0.0.0, and no API key is set: set SEMEL_API_KEYS")
    assert "--insecure" in done.error
    assert listening == []


@pytest.mark.parametrize(("options", "environment"), [(["--insecure"], {}), ([], {"SEMEL_API_KEYS": "sk-one:admin"})])
def test_keys_or_insecure_open_the_address(
    cli: Cli,
    listening: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    environment: dict[str, str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cli("serve", "--host", "0.0.0.0", "--port", "0", *options).code == 0
    assert listening[0].getsockname()[0] == "0.0.0.0"


def test_a_taken_port_is_named_and_no_other_is_chosen(cli: Cli, listening: list[socket.socket]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("serve", "--port", port)
    assert done.code == 1
    assert done.error.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert done.error.endswith("choose another port with --port")
    assert listening == []


def test_an_address_of_another_machine_is_refused(cli: Cli) -> None:
    done = cli("serve", "--host", "192.0.2.1", "--port", "0", "--insecure")
    assert (done.code, "cannot listen on 192.0.2.1:0" in done.error) == (1, True)


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(cli: Cli, port: str) -> None:
    done = cli("serve", "--port", port)
    assert done.code == 2
    assert "port" in done.err


def test_keys_that_cannot_be_read_stop_the_server(
    cli: Cli, listening: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEL_API_KEYS_FILE", "/nowhere/keys")
    done: Any = cli("serve", "--port", "0")
    assert (done.code, "/nowhere/keys" in done.error, listening) == (2, True, [])
