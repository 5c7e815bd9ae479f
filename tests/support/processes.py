"""semel as a user runs it: Redis, API and workers as processes, each of which can be killed and started again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import redis

from semel.cli.work.parts import find_redis_server, free_port
from semel.client import Client
from semel.errors import UnavailableError

ON_CPU = {"SEMEL_SOFTWARE_DEVICES": "true"}
"""Settings that let MLX run without Metal and Vulkan without a GPU."""

FAKE_TOML = """
default_model = "fake"
[models.fake]
source = "fake:?dim=16&{options}"
[models.prompted]
source = "fake:?dim=16"
prompts = {{ query = "find ", document = "text " }}
[models.reranker]
source = "fake:?fail_on=poison&max_tokens=20&journal=scored"
kind = "cross-encoder"
"""

KINDS_TOML = (
    FAKE_TOML
    + """
[models.labels]
source = "fake:?dim=3&activation=Softmax&fail_on=poison&max_tokens=20"
kind = "classifier"
[models.sparse]
source = "fake:?fail_on=poison&max_tokens=20"
kind = "sparse"
"""
)
"""With a model of every kind."""


class Processes:
    """The processes of one semel, with their logs in `folder`.

    Args:
        model: options of the fake model `fake`, in the form of a URL query.
        toml: the content of semel.toml; `{options}` is replaced with `model`.
        settings: more environment variables.

    Attributes:
        own: environment variables of single parts, which take effect when the part is started.
    """

    def __init__(
        self, folder: Path, *, model: str = "", toml: str = FAKE_TOML, settings: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.port, self.redis_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "semel.toml").write_text(toml.format(options=model))
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SEMEL_")},
            "SEMEL_HOME": str(folder / "home"),
            "SEMEL_CONFIG": str(folder / "semel.toml"),
            "SEMEL_REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "SEMEL_PORT": str(self.port),
            "COLUMNS": "200",
            **(settings or {}),
        }
        self.own: dict[str, dict[str, str]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ports: dict[str, int] = {}
        self.client = Client(self.url)

    def start_redis(self) -> None:
        """Start a Redis that stores nothing on disk, and wait until it answers."""
        command = [find_redis_server(), "--port", str(self.redis_port), "--save", "", "--dir", str(self.folder)]
        self._start("redis", command)
        client = redis.Redis(port=self.redis_port)
        wait_until(lambda: answers(client))
        client.close()

    def start_api(self, name: str = "api") -> None:
        """Start the API, or another one next to it on a port of its own, and wait until it answers."""
        port = self.port if name == "api" else self._ports.setdefault(name, free_port())
        self._start(name, [sys.executable, "-m", "semel", "serve"], SEMEL_PORT=str(port))
        with Client(self.url_of(name)) as client:
            wait_until(lambda: "database" in _parts(client) or self.has_ended(name), timeout_s=90, detail=self.logs)
        assert not self.has_ended(name), self.logs()

    def url_of(self, name: str) -> str:
        """The URL of an API."""
        return self.url if name == "api" else f"http://127.0.0.1:{self._ports[name]}"

    def start_worker(self, name: str = "worker", *, device: str = "cpu") -> None:
        """Start a worker, and do not wait for it."""
        self._start(name, [sys.executable, "-m", "semel", "worker", "--device", device])

    def start_all(self) -> None:
        """Start Redis, the API and a worker, and wait until all are ready."""
        self.start_redis()
        self.start_api()
        self.start_worker()
        self.wait_ready()

    def pools(self) -> dict[str, dict[str, Any]]:
        """The answer of /health/backends, by device."""
        return {pool["device"]: pool for pool in httpx.get(f"{self.url}/health/backends").json()}

    def wait_for_pool(self, device: str, status: str = "healthy") -> dict[str, Any]:
        """Wait until the pool of a device has this status."""
        wait_until(lambda: self.pools().get(device, {}).get("status") == status, timeout_s=120, detail=self.logs)
        return self.pools()[device]

    def wait_ready(self) -> None:
        """Wait until /health/ready reports every part as ok."""
        wait_until(lambda: set(_parts(self.client).values()) == {"ok"}, timeout_s=90, detail=self.logs)

    def _start(self, name: str, command: list[str], **settings: str) -> None:
        environment = {**self.environment, **self.own.get(name, {}), **settings}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )

    def has_ended(self, name: str) -> bool:
        """Whether a part that runs, as far as nobody stopped it, has ended by itself."""
        return self._running[name].poll() is not None

    def revive(self, worker: str) -> bool:
        """Start a worker again that has ended by itself, as a supervisor does; returns whether it had."""
        process = self._running.get(worker)
        if process is None or process.poll() is None:
            return False
        self.start_worker(worker)
        return True

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return self._running[name].pid

    def stop(self, name: str, number: int = signal.SIGTERM) -> int:
        """Send a part a signal, wait for its end, and return its exit code."""
        process = self._running.pop(name)
        process.send_signal(number)
        return process.wait(30)

    def semel(self, *arguments: str, ok: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a semel command to its end. A traceback fails the test, and with `ok` every failure does."""
        done = subprocess.run(
            [sys.executable, "-m", "semel", *arguments],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        if ok:
            assert done.returncode == 0, done.stderr
        return done

    def logs(self) -> str:
        """The end of every part's log."""
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in self.folder.glob("*.log"))

    def close(self) -> None:
        """Stop every part that runs."""
        self.client.close()
        for name in list(self._running)[::-1]:
            process = self._running.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(client: "redis.Redis") -> bool:
    """Whether this Redis answers."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def stored_vectors(home: Path) -> int:
    """The number of vectors in the SQLite cache in SEMEL_HOME; 0 before there is one."""
    try:
        with closing(sqlite3.connect(f"file:{home / 'semel.db'}?mode=ro", uri=True)) as database:
            count: int = database.execute("SELECT count(*) FROM vectors").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    return count


@contextmanager
def processes(folder: Path, *, model: str = "", toml: str = FAKE_TOML, **settings: str) -> Iterator[Processes]:
    """Run Redis, the API and a worker while the block runs; see `Processes` for the arguments.

    A test that fails prints their logs.
    """
    running = Processes(folder, model=model, toml=toml, settings=settings)
    try:
        running.start_all()
        yield running
    except BaseException:
        sys.stderr.write(running.logs())
        raise
    finally:
        running.close()


def _parts(client: Client) -> dict[str, str]:
    try:
        return client.ready()
    except UnavailableError:
        return {}


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30, detail: Callable[[], str] = lambda: "") -> None:
    """Wait until `condition` returns True.

    Args:
        condition: called about every 0.05 s.
        timeout_s: after this the test fails.
        detail: returns more text for the message of the failure.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true after {timeout_s} s\n{detail()}")
        time.sleep(0.05)
