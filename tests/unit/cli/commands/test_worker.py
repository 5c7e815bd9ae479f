"""`semel worker`: one worker in this process, or several as the parts of a stack. No worker really runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from semel.cli.work.parts import Part
from semel.errors import BackendError
from semel.settings import Settings
from semel.values.device import DeviceInfo
from tests.support.cli import Cli

HERE = [DeviceInfo("mlx", usable=True, why="a stand-in", software=True), DeviceInfo("cpu", usable=True, why="a CPU")]


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a worker process does, in order, on a machine with two devices."""
    done: list[str] = []

    class Recorded:
        def __init__(self, settings: Settings, *, device: str) -> None:
            done.append(f"open {device}")

        def run(self) -> None:
            done.append("run")

    monkeypatch.setattr("semel.backends.devices.find.pin", lambda device: done.append(f"pin {device}"))
    monkeypatch.setattr("semel.backends.devices.select.find_devices", lambda **_: HERE)
    monkeypatch.setattr("semel.tasks.worker.worker.Worker", Recorded)
    monkeypatch.setattr("semel.tracing.close_traces", lambda: done.append("close traces"))
    return done


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts that a stack would start; it is stopped after the second look."""
    started: list[Part] = []
    looks = iter([False, False, True])

    class Recorded:
        def __init__(self, log: Any) -> None:
            pass

        def start(self, part: Part) -> None:
            started.append(part)

        def watch(self) -> None:
            pass

    @contextmanager
    def until_stopped(_: object) -> Iterator[Callable[[], bool]]:
        yield lambda: next(looks)

    monkeypatch.setattr("semel.cli.work.stack.Stack", Recorded)
    monkeypatch.setattr("semel.cli.work.stack.until_stopped", until_stopped)
    monkeypatch.setattr("semel.cli.work.parts.usable_devices", lambda: HERE)
    monkeypatch.setattr("semel.cli.work.parts.usable_cores", lambda: 4)
    return started


def test_a_worker_is_pinned_before_it_opens_its_device(cli: Cli, steps: list[str]) -> None:
    assert cli("worker", "--device", "cpu").code == 0
    assert steps == ["pin cpu", "open cpu", "run", "close traces"]


def test_auto_takes_the_device_of_the_settings(cli: Cli, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMEL_DEVICE", "cpu")
    cli("worker")
    assert steps[:2] == ["pin cpu", "open cpu"]


def test_a_device_that_is_not_here_is_named(cli: Cli, steps: list[str]) -> None:
    done = cli("worker", "--device", "cuda:3")
    assert done.code == 2
    assert "'cuda:3'" in done.error
    assert "run" not in steps


def test_traces_are_sent_also_after_a_failure(cli: Cli, steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: object) -> None:
        raise BackendError("the device is lost")

    monkeypatch.setattr("semel.tasks.worker.worker.Worker.run", lost)
    done = cli("worker", "--device", "cpu")
    assert (done.code, done.error, steps[-1]) == (1, "the device is lost", "close traces")


def test_all_starts_one_process_for_each_device(cli: Cli, parts: list[Part], steps: list[str]) -> None:
    assert cli("worker", "--all").code == 0
    assert [part.name for part in parts] == ["worker mlx", "worker cpu"]
    assert [list(part.command[-2:]) for part in parts] == [["--device", "mlx"], ["--device", "cpu"]]
    assert [part.environment for part in parts] == [{"SEMEL_CPU_THREADS": "2"}] * 2, "both compute on the CPU"
    assert steps == [], "this process runs no worker itself"


def test_processes_share_the_cores_of_the_cpu(cli: Cli, parts: list[Part]) -> None:
    assert cli("worker", "--device", "cpu", "--processes", "3").code == 0
    assert [part.name for part in parts] == ["worker cpu 1", "worker cpu 2", "worker cpu 3"]
    assert {part.environment["SEMEL_CPU_THREADS"] for part in parts} == {"1"}


def test_processes_take_the_device_of_the_settings(
    cli: Cli, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMEL_DEVICE", "cpu")
    assert cli("worker", "--processes", "2").code == 0
    assert len(parts) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--all", "--device", "cpu"], "--all uses every device and --device cpu one"),
        (["--processes", "2", "--device", "cuda"], "--processes shares the cores of the CPU"),
        (["--processes", "2"], "--processes shares the cores of the CPU"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    cli: Cli, parts: list[Part], options: list[str], message: str
) -> None:
    done = cli("worker", *options)
    assert done.code == 2
    assert message in done.error
    assert parts == []


def test_all_needs_a_usable_device(cli: Cli, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semel.cli.work.parts.usable_devices", list)
    done = cli("worker", "--all")
    assert (done.code, done.error) == (1, "no device is usable here; 'semel devices' shows why")


def test_at_least_one_process_runs(cli: Cli) -> None:
    done = cli("worker", "--device", "cpu", "--processes", "0")
    assert (done.code, "--processes" in done.err) == (2, True)
