"""The devices and models of the API's machine, as `semel devices` and `semel models` list them.

The two commands run as processes, because looking for devices loads the frameworks, which the API does not load.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool

from semel.errors import UnavailableError
from semel.kept import Kept

_KEPT_S = 10.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Found:
    """What the two commands print as JSON.

    Attributes:
        devices: the fields of `semel.values.device.DeviceInfo` for each device.
        models: the name and source of each model, and its files or the error.
    """

    devices: list[dict[str, Any]]
    models: list[dict[str, Any]]


class Machine:
    """Runs the commands on request; concurrent requests share one run, and its result is kept for some seconds."""

    def __init__(self) -> None:
        self._found: Kept[Found] = Kept(_KEPT_S)
        self._looking = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    async def look(self) -> Found:
        """The devices and models; takes seconds. Raises UnavailableError when a command fails or hangs."""
        async with self._looking:
            return await run_in_threadpool(self._found.get, lambda: Found(self._run("devices"), self._run("models")))

    def close(self) -> None:
        """Kill the command that is running, if there is one."""
        if self._process is not None:
            self._process.kill()

    def _run(self, command: str) -> list[dict[str, Any]]:
        """The JSON that `semel COMMAND --json` prints."""
        arguments = [sys.executable, "-m", "semel", command, "--json"]
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(arguments, stdin=nothing, stdout=pipe, stderr=pipe) as self._process:
            try:
                printed, errors = self._process.communicate(timeout=_TIMEOUT_S)
                answer: list[dict[str, Any]] = json.loads(printed)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise UnavailableError(f"'semel {command}' did not finish within {_TIMEOUT_S:.0f} s") from None
            except ValueError:
                lines = errors.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
                raise UnavailableError(f"'semel {command}' failed: {lines[-1]}") from None
            finally:
                self._process = None if self._process.poll() is not None else self._process
        return answer
