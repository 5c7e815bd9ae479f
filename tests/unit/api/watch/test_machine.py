"""The devices and models of this machine, as two commands list them."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from semel.api.watch import machine as module
from semel.api.watch.machine import Found, Machine
from semel.errors import UnavailableError
from tests.support.processes import wait_until
from tests.support.service import Service

PRINTS = """#!/bin/sh
echo "$3" >> {log}
echo "[{{\\"name\\": \\"$3\\", \\"arguments\\": \\"$*\\"}}]"
"""


class Command:
    """A program in the place of `python -m semel`.

    Attributes:
        calls: the commands that were run.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self._log = folder / "python", folder / "log"
        monkeypatch.setattr(module, "sys", SimpleNamespace(executable=str(self._path)))
        self.becomes(PRINTS.format(log=self._log))

    def becomes(self, script: str) -> None:
        self._path.write_text(script)
        self._path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().split() if self._log.exists() else []


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(tmp_path, monkeypatch)


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def test_what_the_two_commands_print_is_found(command: Command, machine: Machine) -> None:
    found = asyncio.run(machine.look())
    assert found == Found(
        [{"name": "devices", "arguments": "-m semel devices --json"}],
        [{"name": "models", "arguments": "-m semel models --json"}],
    )


def test_what_was_found_is_kept_for_a_while(command: Command, machine: Machine) -> None:
    async def twice() -> tuple[Found, Found]:
        return await machine.look(), await machine.look()

    first, second = asyncio.run(twice())
    assert first is second
    assert command.calls == ["devices", "models"]


def test_concurrent_requests_share_one_run(command: Command, machine: Machine) -> None:
    async def together() -> list[Found]:
        return await asyncio.gather(*(machine.look() for _ in range(5)))

    assert len({id(found) for found in asyncio.run(together())}) == 1
    assert command.calls == ["devices", "models"]


def test_a_command_that_fails_is_named_with_its_last_line(command: Command, machine: Machine) -> None:
    command.becomes("#!/bin/sh\necho first >&2\necho 'no module named semel' >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match=r"^'semel devices' failed: no module named semel$"):
        asyncio.run(machine.look())


def test_a_command_that_prints_nothing_is_named(command: Command, machine: Machine) -> None:
    command.becomes("#!/bin/sh\n")
    with pytest.raises(UnavailableError, match="'semel devices' failed: it printed nothing"):
        asyncio.run(machine.look())


def test_a_failure_is_not_kept(command: Command, machine: Machine) -> None:
    command.becomes("#!/bin/sh\n")
    with pytest.raises(UnavailableError):
        asyncio.run(machine.look())
    command.becomes("#!/bin/sh\necho []\n")
    assert asyncio.run(machine.look()) == Found([], [])


def test_a_command_that_hangs_is_killed(command: Command, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_S", 0.05)
    command.becomes("#!/bin/sh\nexec sleep 30\n")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="'semel devices' did not finish within 0 s"):
        asyncio.run(machine.look())
    assert time.monotonic() - started < 10
    assert machine._process is None or machine._process.poll() is not None


def test_closing_kills_the_command_that_runs(command: Command, machine: Machine) -> None:
    command.becomes("#!/bin/sh\nexec sleep 30\n")
    failures: list[Exception] = []

    def look() -> None:
        try:
            asyncio.run(machine.look())
        except UnavailableError as error:
            failures.append(error)

    looking = threading.Thread(target=look)
    looking.start()
    wait_until(lambda: machine._process is not None, timeout_s=10)
    machine.close()
    looking.join(10)
    assert not looking.is_alive()
    assert len(failures) == 1


def test_closing_does_no_harm_when_nothing_runs(machine: Machine) -> None:
    machine.close()
    machine.close()


def test_the_route_shows_what_was_found(api: Service, command: Command) -> None:
    command.becomes(
        "#!/bin/sh\n"
        'if [ "$3" = devices ]; then echo \'[{"name": "cpu", "usable": true, "why": "is there", "software": false}]\'\n'
        'else echo \'[{"name": "minilm"}]\'; fi\n'
    )
    found = api.http.get("/v1/inventory").json()
    assert found["devices"] == [{"name": "cpu", "usable": True, "why": "is there", "software": False}]
    assert found["models"] == [{"name": "minilm"}]
