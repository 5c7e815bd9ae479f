"""`semel up` as a user runs it, in a process."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from semel.cli.work.parts import free_port
from tests.support.processes import FAKE_TOML, wait_until


class Up:
    """A running `semel up` and its log.

    Args:
        folder: its working folder.
        options: more options of the command; `--no-flower` if there are none.
        model: options of the fake model, in the form of a URL query.
        port: the port of an earlier `semel up`, to replace it.
        redis_url: written to its semel.toml.
    """

    def __init__(
        self, folder: Path, *options: str, model: str = "", port: int | None = None, redis_url: str | None = None
    ) -> None:
        redis = f'redis_url = "{redis_url}"\n' if redis_url else ""
        (folder / "semel.toml").write_text(redis + FAKE_TOML.format(options=model))
        self.folder = folder
        self.port, self.redis_port = port or free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log: list[str] = []
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SEMEL_")},
            "SEMEL_HOME": str(folder / "home"),
        }
        command = [sys.executable, "-m", "semel", "up", "--port", str(self.port), "--redis-port", str(self.redis_port)]
        command += options or ["--no-flower"]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            self.log.extend(line.rstrip() for line in iter(lines.readline, ""))

    def logged(self, pattern: str) -> bool:
        """Whether a line of the log matches."""
        return any(re.search(pattern, line) for line in list(self.log))

    def text(self) -> str:
        """The whole log."""
        return "\n".join(self.log)

    def parts(self) -> list[psutil.Process]:
        """The child processes."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        """Stop the process as Ctrl-C does, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self._reader.join()


@contextmanager
def up(
    folder: Path, *options: str, model: str = "", port: int | None = None, redis_url: str | None = None
) -> Iterator[Up]:
    """Run `semel up` while the block runs; yields when it is ready. See `Up` for the arguments."""
    running = Up(folder, *options, model=model, port=port, redis_url=redis_url)
    try:
        wait_until(lambda: running.logged("ready: ") or running.process.poll() is not None, timeout_s=90)
        yield running
    finally:
        running.close()
