"""The parts of the stack: their commands, their share of the cores, their ports."""

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from semel.cli.work import parts as parts_module
from semel.cli.work.parts import (
    Part,
    check_port,
    find_redis_server,
    flower_part,
    free_port,
    has_flower,
    is_ready,
    redis_part,
    semel_part,
    usable_devices,
    worker_parts,
)
from semel.client import Client
from semel.errors import SemelError, UnavailableError
from semel.settings import own_redis_url
from semel.values.device import DeviceInfo
from tests.support.cli import exchange_over

CPU = DeviceInfo("cpu", usable=True, why="a CPU")
LAVAPIPE = DeviceInfo("vulkan:0", usable=True, why="lavapipe", software=True)
CUDA = DeviceInfo("cuda:0", usable=True, why="a GPU")


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "usable_cores", lambda: 8)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def threads(part: Part) -> str | None:
    return part.environment.get("SEMEL_CPU_THREADS")


def test_a_semel_part_runs_this_python() -> None:
    part = semel_part("api", "serve", environment={"A": "1"})
    assert part == Part("api", [sys.executable, "-m", "semel", "serve"], {"A": "1"})


def test_a_worker_alone_takes_all_cores() -> None:
    (worker,) = worker_parts([CPU], environment={})
    assert (worker.name, threads(worker)) == ("worker cpu", None)


def test_a_gpu_takes_no_core_from_the_cpu() -> None:
    workers = worker_parts([CUDA, CPU], environment={"A": "1"})
    assert [(one.name, threads(one)) for one in workers] == [("worker cuda:0", None), ("worker cpu", None)]
    assert all(one.environment["A"] == "1" for one in workers)


def test_devices_that_compute_on_the_cpu_share_its_cores() -> None:
    workers = worker_parts([LAVAPIPE, CUDA, CPU], environment={})
    assert [threads(one) for one in workers] == ["4", None, "4"]


def test_workers_of_one_device_are_numbered() -> None:
    workers = worker_parts([CPU] * 3, environment={})
    assert [one.name for one in workers] == ["worker cpu 1", "worker cpu 2", "worker cpu 3"]
    assert {threads(one) for one in workers} == {"2"}


def test_more_workers_than_cores_have_one_thread_each() -> None:
    assert {threads(one) for one in worker_parts([CPU] * 20, environment={})} == {"1"}


def test_threads_that_the_user_set_are_kept() -> None:
    workers = worker_parts([CPU, CPU], environment={"SEMEL_CPU_THREADS": "7"})
    assert {threads(one) for one in workers} == {"7"}


def test_no_device_has_no_worker() -> None:
    assert worker_parts([], environment={}) == []


def test_a_redis_on_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = tmp_path / "redis-server"
    server.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == str(server)


def test_else_the_bundled_one_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundled = tmp_path / "_binaries" / "linux-x86_64" / "valkey-server"
    bundled.parent.mkdir(parents=True)
    bundled.touch()
    monkeypatch.setenv("PATH", "")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(parts_module.importlib.util, "find_spec", lambda _: spec)
    assert find_redis_server() == str(bundled)


@pytest.mark.parametrize("installed", [True, False])
def test_without_a_redis_the_message_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: bool
) -> None:
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py")) if installed else None
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(parts_module.importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(UnavailableError, match=r"no redis-server was found: install Redis, .* or set SEMEL_REDIS_URL"):
        find_redis_server()


def test_redis_keeps_nothing_and_listens_on_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts_module, "find_redis_server", lambda: "redis-server")
    part = redis_part(6391, tmp_path / "new")
    assert (tmp_path / "new").is_dir()
    options = dict(zip(part.command[2::2], part.command[3::2], strict=True))
    assert options["--port"] == "6391"
    assert options["--bind"] == "127.0.0.1"
    assert (options["--save"], options["--appendonly"]) == ("", "no")
    assert options["--dir"] == str(tmp_path / "new")


def test_redis_has_a_password_that_only_the_owner_can_read_and_that_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(parts_module, "find_redis_server", lambda: "redis-server")
    assert own_redis_url(tmp_path, 6391) == "redis://127.0.0.1:6391/0"
    part = redis_part(6391, tmp_path)
    url = own_redis_url(tmp_path, 6391)
    password = url.removeprefix("redis://:").partition("@")[0]
    assert len(password) == 48
    assert password not in " ".join(part.command)
    assert (tmp_path / "redis.conf").stat().st_mode & 0o777 == 0o600
    redis_part(6391, tmp_path)
    assert own_redis_url(tmp_path, 6391) == url


def test_a_file_without_a_password_gets_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parts_module, "find_redis_server", lambda: "redis-server")
    (tmp_path / "redis.conf").touch(mode=0o600)
    redis_part(6391, tmp_path)
    assert own_redis_url(tmp_path, 6391).startswith("redis://:")


def test_flower_is_read_only_and_local(tmp_path: Path) -> None:
    part = flower_part(5556, redis_url="redis://here:1/0", folder=tmp_path)
    assert {"--address=127.0.0.1", "--port=5556", "--read_only=True"} <= set(part.command)
    assert part.environment == {"CELERY_BROKER_URL": "redis://here:1/0"}
    assert "redis://" not in " ".join(part.command)
    assert f"--db={tmp_path / 'flower.db'}" in part.command


@pytest.mark.parametrize("spec", [None, SimpleNamespace()])
def test_flower_is_optional(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    monkeypatch.setattr(parts_module.importlib.util, "find_spec", lambda _: spec)
    assert has_flower() is (spec is not None)


def test_a_free_port_passes_and_a_taken_one_is_named(taken: int) -> None:
    check_port(free_port(), what="the API", option="--port")
    with pytest.raises(UnavailableError) as caught:
        check_port(taken, what="the API", option="--port")
    assert str(caught.value) == f"port {taken} for the API is taken; free it, or choose another with --port"


def test_a_free_port_is_below_those_of_outgoing_connections() -> None:
    port = free_port()
    assert 20_000 <= port < 32_000
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_taken_ports_are_passed_over(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    free = free_port()
    monkeypatch.setattr(parts_module.random, "sample", lambda *_: [taken, taken, free])
    assert free_port() == free


def test_no_free_port_is_an_error(monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    monkeypatch.setattr(parts_module.random, "sample", lambda *_: [taken])
    with pytest.raises(UnavailableError, match="no free port was found between 20000 and 32000"):
        free_port()


def devices_answer(monkeypatch: pytest.MonkeyPatch, code: int, out: str = "", err: str = "") -> list[Any]:
    """Let `semel devices` end like this; returns the commands that were run."""
    commands: list[Any] = []

    def run(command: list[str], **_: Any) -> "CompletedProcess[str]":
        commands.append(command)
        return CompletedProcess(command, code, out, err)

    monkeypatch.setattr(parts_module.subprocess, "run", run)
    return commands


def test_a_child_process_finds_the_usable_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "cuda:0", "usable": False, "why": "no driver", "software": False}]
    rows.append({"name": "cpu", "usable": True, "why": "a CPU", "software": False})
    commands = devices_answer(monkeypatch, 0, json.dumps(rows))
    assert usable_devices() == [CPU]
    assert commands == [[sys.executable, "-m", "semel", "devices", "--json"]]


def test_a_child_process_that_fails_is_an_error_with_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    devices_answer(monkeypatch, 2, err="error: setting 'device' is wrong\n")
    with pytest.raises(SemelError, match="'semel devices' failed: error: setting 'device' is wrong"):
        usable_devices()


@pytest.mark.parametrize(
    ("parts", "ready"),
    [
        ({"database": "ok", "redis": "ok"}, True),
        ({"database": "ok", "redis": "does not answer"}, False),
        ({}, True),
        (None, False),
    ],
)
def test_a_server_is_ready_when_all_its_parts_are(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, str] | None, ready: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/health/ready"
        if parts is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json={"parts": parts})

    monkeypatch.setattr("semel.client.client.Exchange", exchange_over(httpx.MockTransport(answer)))
    with Client("http://any") as client:
        assert is_ready(client) is ready
