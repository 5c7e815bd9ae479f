"""The embedded stack: Redis, API and workers as child processes that are watched, restarted and stopped together."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from semel.cli.work.parts import Part, free_port, is_ready, redis_part, semel_part
from semel.client import Client
from semel.errors import SemelError, UnavailableError
from semel.settings import own_redis_url

_FIRST_PAUSE_S = 1.0
"""Before the first restart; the pause doubles with every failure."""

_LONGEST_PAUSE_S = 30.0

_STEADY_S = 60.0
"""A part that ran this long before it died is restarted at once."""

_START_S = 120.0
"""The whole stack must be ready after this."""

_WATCH_S = 0.3
"""Between two looks at the parts."""

_GRACE_S = 15.0
"""Time for a worker to finish the chunks in hand. Then it is killed, and its leases run out."""


class Stack:
    """Parts that are started, watched and stopped together.

    Args:
        log: receives the output of all parts, each line with the name of its part before it.
    """

    def __init__(self, log: IO[str]) -> None:
        self._log = log
        self._parts: list[Part] = []
        self._lock = threading.Lock()

    def start(self, part: Part) -> None:
        """Start a part, and watch it from now on."""
        self._parts.append(part)
        self._spawn(part)

    def _spawn(self, part: Part) -> None:
        part.started_at = time.monotonic()
        part.process = subprocess.Popen(
            list(part.command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **part.environment},
            start_new_session=True,  # Ctrl-C reaches this process only, which stops the parts in order
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        threading.Thread(target=self._copy_lines, args=(part, part.process), daemon=True).start()

    def _copy_lines(self, part: Part, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None  # PIPE above
        with process.stdout as lines:
            for line in lines:
                self.log(part.name, line.rstrip())

    def log(self, name: str, line: str) -> None:
        """Write one line to the common log."""
        with self._lock:
            self._log.write(f"{name:<12} {line}\n")
            self._log.flush()

    def watch(self) -> None:
        """Restart parts that have died, after a pause that grows with each failure. Call it often."""
        now = time.monotonic()
        for part in self._parts:
            code = part.process.poll() if part.process else None
            if part.process and code is None:
                continue
            if part.process:  # it has just died
                steady = now - part.started_at > _STEADY_S
                part.failures = 0 if steady else part.failures + 1
                pause = 0.0 if steady else min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (part.failures - 1))
                part.restart_at, part.process = now + pause, None
                self.log("semel", f"{part.name} ended ({describe_exit(code)}); starting it again in {pause:.0f} s")
            elif now >= part.restart_at:
                self._spawn(part)

    def dead_part(self) -> str | None:
        """Return the name of a part that has died, and how; None if all run. For callers that do not restart parts."""
        for part in self._parts:
            if part.process is None or part.process.poll() is not None:
                return f"{part.name} ({describe_exit(part.process.poll() if part.process else None)})"
        return None

    def kill(self, name: str) -> None:
        """Kill a part, as if it had crashed; `watch` starts it again."""
        for part in self._parts:
            if part.name == name and part.process is not None:
                part.process.kill()
                part.process.wait()

    def stop(self) -> None:
        """Stop the parts, the last started first; kill those that do not end in time."""
        for part in reversed(self._parts):
            if part.process and part.process.poll() is None:
                part.process.send_signal(signal.SIGTERM)
                try:
                    part.process.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    self.log("semel", f"{part.name} did not end within {_GRACE_S:g} s; killing it")
                    part.process.kill()
                    part.process.wait()
        self._parts.clear()


def describe_exit(code: int | None) -> str:
    """Describe an exit code as the reason why a process ended; None is a process that is not running."""
    if code is None:
        return "not running"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}, see its last lines above"


def _die_with_parent() -> None:
    """On Linux, let this child receive SIGTERM if `semel up` is killed, instead of running on without it."""
    import ctypes

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextmanager
def until_stopped(stack: Stack) -> Iterator[Callable[[], bool]]:
    """Stop the parts when the block ends.

    Yields:
        A function that waits a moment and returns whether Ctrl-C was pressed or SIGTERM was received.
    """
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        yield lambda: stopping.wait(_WATCH_S)
        stack.log("semel", "stopping")
    finally:
        stack.stop()


@contextmanager
def throwaway_stack(home: Path, *, config: str = "", database_url: str = "", device: str = "cpu") -> Iterator[str]:
    """Run what `running_stack` runs, with the same arguments and errors; yields the URL of the API."""
    with running_stack(home, config=config, database_url=database_url, device=device) as (_, url):
        yield url


@contextmanager
def running_stack(
    home: Path, *, config: str = "", database_url: str = "", device: str = "cpu"
) -> Iterator[tuple[Stack, str]]:
    """Run Redis, the API and a worker on free ports, with all files in `home`; yields them and the URL of the API.

    Args:
        config: the content of its semel.toml; a semel.toml in the working folder is not read.
        database_url: an empty database; without it, SQLite in `home`.

    Raises:
        UnavailableError: a part does not start; the log of all parts is written to stderr.
    """
    port, redis_port = free_port(), free_port()
    (home / "semel.toml").write_text(config)
    environment = {
        "SEMEL_HOME": str(home),
        "SEMEL_CONFIG": str(home / "semel.toml"),
        "SEMEL_DATABASE_URL": database_url or f"sqlite:///{home / 'semel.db'}",
        "SEMEL_PORT": str(port),
    }
    log, url = io.StringIO(), f"http://127.0.0.1:{port}"
    stack = Stack(log)
    try:
        stack.start(redis_part(redis_port, home))
        environment["SEMEL_REDIS_URL"] = own_redis_url(home, redis_port)
        stack.start(semel_part("api", "serve", environment=environment))
        stack.start(semel_part(f"worker {device}", "worker", "--device", device, environment=environment))
        _wait_until_ready(stack, url)
        yield stack, url
    except SemelError:
        sys.stderr.write(log.getvalue())
        raise
    finally:
        stack.stop()


def _wait_until_ready(stack: Stack, url: str) -> None:
    deadline = time.monotonic() + _START_S
    with Client(url, timeout_s=5) as client:
        while time.monotonic() < deadline:
            if dead := stack.dead_part():
                raise UnavailableError(f"{dead} ended while the stack was starting; its log is above")
            if is_ready(client):
                return
            time.sleep(0.2)
    raise UnavailableError(f"the stack was not ready after {_START_S:.0f} s; its log is above")
