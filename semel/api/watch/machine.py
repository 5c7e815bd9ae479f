"""The devices and models of the machine that the API runs on, as `semel devices` and `semel models` see them.

They are asked as processes, because looking for devices loads the frameworks, which the API does not.
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
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Found:
    """What the two commands print as JSON: each a `semel.values.DeviceInfo`; a model's name, source, files or error."""

    devices: list[dict[str, Any]]
    models: list[dict[str, Any]]


class Machine:
    """Looks when somebody asks; those who ask meanwhile wait for the same answer, which is kept for some seconds."""

    def __init__(self) -> None:
        self._found: Kept[Found] = Kept(_KEPT_S)
        self._looking = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    async def look(self) -> Found:
        """Takes seconds. Raises UnavailableError."""
        async with self._looking:
            return await run_in_threadpool(self._found.get, lambda: Found(self._ask("devices"), self._ask("models")))

    def close(self) -> None:
        """End what is being asked."""
        if self._process is not None:
            self._process.kill()

    def _ask(self, command: str) -> list[dict[str, Any]]:
        asked = [sys.executable, "-m", "semel", command, "--json"]
        nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(asked, stdin=nothing, stdout=pipe, stderr=pipe) as self._process:
            try:
                printed, said = self._process.communicate(timeout=_PATIENCE_S)
                answer: list[dict[str, Any]] = json.loads(printed)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise UnavailableError(f"'semel {command}' did not answer for {_PATIENCE_S:.0f} s") from None
            except ValueError:
                lines = said.decode(errors="replace").strip().splitlines() or ["it printed nothing"]
                raise UnavailableError(f"'semel {command}' did not answer: {lines[-1]}") from None
            finally:
                self._process = None if self._process.poll() is not None else self._process
        return answer
