"""`semel up`: which parts it would start, with which settings, and which ports it refuses. No part really runs."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from semel.cli.work.parts import Part, free_port
from semel.errors import UnavailableError
from semel.settings import own_redis_url
from semel.values.device import DeviceInfo
from tests.support.cli import Cli


class Recorded:
    """A stack that starts nothing."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.lines: list[str] = []

    def start(self, part: Part) -> None:
        self.parts.append(part)

    def watch(self) -> None:
        pass

    def log(self, name: str, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """The stack of a machine with a CPU, where Flower is installed. It is ready at the second look."""
    recorded = Recorded()
    looks, ready = iter([False, False, False, True]), iter([False, True])

    @contextmanager
    def until_stopped(_: object) -> Iterator[Callable[[], bool]]:
        yield lambda: next(looks)

    monkeypatch.setattr("semel.cli.work.up.Stack", lambda _: recorded)
    monkeypatch.setattr("semel.cli.work.up.until_stopped", until_stopped)
    monkeypatch.setattr("semel.cli.work.up.is_ready", lambda _: next(ready))
    monkeypatch.setattr("semel.cli.work.up.has_flower", lambda: True)
    monkeypatch.setattr("semel.cli.work.up.usable_devices", lambda: [DeviceInfo("cpu", usable=True, why="a CPU")])
    monkeypatch.setattr("semel.cli.work.parts.find_redis_server", lambda: "redis-server")
    return recorded


@pytest.fixture
def ports() -> list[str]:
    """Three options with free ports."""
    free = [free_port() for _ in range(3)]
    return [f"--port={free[0]}", f"--redis-port={free[1]}", f"--flower-port={free[2]}"]


def port_of(option: str) -> str:
    return option.partition("=")[2]


def test_redis_starts_first_then_the_api_workers_and_flower(
    cli: Cli, stack: Recorded, ports: list[str], folder: Path
) -> None:
    assert cli("up", *ports).code == 0
    assert [part.name for part in stack.parts] == ["redis", "api", "worker cpu", "flower"]
    redis, api, worker, flower = stack.parts
    assert f"--port {port_of(ports[1])} " in " ".join(redis.command)
    assert api.environment == worker.environment
    assert "requirepass" in (folder / "home" / "redis.conf").read_text()
    assert api.environment == {
        "SEMEL_REDIS_URL": own_redis_url(folder / "home", int(port_of(ports[1]))),
        "SEMEL_PORT": port_of(ports[0]),
        "SEMEL_TASK_EVENTS": "true",
    }
    assert f"--port={port_of(ports[2])}" in flower.command


def test_it_says_once_that_it_is_ready(cli: Cli, stack: Recorded, ports: list[str], folder: Path) -> None:
    cli("up", *ports)
    url = f"http://127.0.0.1:{port_of(ports[0])}"
    assert stack.lines == [
        f"flower: http://127.0.0.1:{port_of(ports[2])}",
        f"ready: {url}  (docs: {url}/docs, database: sqlite:///{folder / 'home' / 'semel.db'})",
    ]


def test_without_flower_workers_send_no_task_events(cli: Cli, stack: Recorded, ports: list[str]) -> None:
    cli("up", *ports, "--no-flower")
    assert [part.name for part in stack.parts] == ["redis", "api", "worker cpu"]
    assert "SEMEL_TASK_EVENTS" not in stack.parts[1].environment


def test_flower_is_left_out_where_it_is_not_installed(
    cli: Cli, stack: Recorded, ports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.cli.work.up.has_flower", lambda: False)
    assert cli("up", *ports).code == 0
    assert "flower" not in [part.name for part in stack.parts]


@pytest.mark.parametrize("where", ["environment", "toml"])
def test_a_configured_redis_is_used_and_none_is_started(
    cli: Cli, stack: Recorded, ports: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    url = "redis://elsewhere:6379/0"
    if where == "environment":
        monkeypatch.setenv("SEMEL_REDIS_URL", url)
    else:
        (folder / "semel.toml").write_text(f'redis_url = "{url}"\n')
    assert cli("up", *ports).code == 0
    assert [part.name for part in stack.parts] == ["api", "worker cpu", "flower"]
    assert stack.parts[0].environment["SEMEL_REDIS_URL"] == url


@pytest.mark.parametrize(
    ("taken", "what", "advice"),
    [
        (0, "the API", "choose another with --port"),
        (1, "Redis", "SEMEL_REDIS_URL"),
        (2, "Flower", "--no-flower"),
    ],
)
def test_a_taken_port_is_named_and_nothing_is_started(
    cli: Cli, stack: Recorded, ports: list[str], taken: int, what: str, advice: str
) -> None:
    port = port_of(ports[taken])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", int(port)))
        holder.listen()
        done = cli("up", *ports)
    assert done.code == 1
    assert done.error.startswith(f"port {port} for {what} is taken")
    assert advice in done.error
    assert stack.parts == []


def test_without_a_usable_device_nothing_is_started(
    cli: Cli, stack: Recorded, ports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.cli.work.up.usable_devices", list)
    done = cli("up", *ports)
    assert (done.code, done.error) == (1, "no device is usable here; 'semel devices' shows why")
    assert stack.parts == []


def test_a_missing_redis_server_is_an_error(
    cli: Cli, stack: Recorded, ports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise UnavailableError("no redis-server was found")

    monkeypatch.setattr("semel.cli.work.parts.find_redis_server", missing)
    done = cli("up", *ports)
    assert (done.code, done.error, stack.parts) == (1, "no redis-server was found", [])
