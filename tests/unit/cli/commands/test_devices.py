"""`semel devices` on a machine whose devices are stand-ins and whose models are fake."""

import json
from pathlib import Path

import pytest

from semel.backends.devices.select import Measurements
from semel.errors import BackendError
from semel.values.device import DeviceInfo, Measured
from tests.support.cli import Cli

CPU = DeviceInfo("cpu", usable=True, why="x86_64, 2 cores")
MLX = DeviceInfo("mlx", usable=True, why="a stand-in")
CUDA = DeviceInfo("cuda:0", usable=False, why="no driver")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[DeviceInfo]:
    """The devices of this machine, which a test may change; each passes its self-test."""
    found = [MLX, CUDA, CPU]
    monkeypatch.setattr("semel.backends.devices.find.find_devices", lambda **_: found)
    monkeypatch.setattr("semel.backends.devices.select.find_devices", lambda **_: found)
    monkeypatch.setattr("semel.backends.devices.verify.verify", lambda _: None)
    monkeypatch.setattr("semel.backends.devices.measure._MIN_RUN_S", 0.0)
    return found


def measured(folder: Path) -> dict[str, Measured]:
    return Measurements(folder / "home" / "devices.json").read()


def test_each_device_is_listed_with_the_reason(cli: Cli) -> None:
    lines = cli("devices").out.splitlines()
    assert lines[:3] == [
        "mlx       usable  a stand-in",
        "cuda:0    no      no driver",
        "cpu       usable  x86_64, 2 cores",
    ]
    assert lines[3].startswith("auto takes mlx: ")


def test_json_has_every_field(cli: Cli) -> None:
    rows = cli("devices", "--json").json
    assert [DeviceInfo(**row) for row in rows] == [MLX, CUDA, CPU]


def test_without_a_usable_device_auto_takes_none(cli: Cli, machine: list[DeviceInfo]) -> None:
    machine[:] = [CUDA]
    done = cli("devices")
    assert (done.code, done.out) == (0, "cuda:0    no      no driver\n")


def test_measure_keeps_the_figures_of_usable_devices(cli: Cli, folder: Path) -> None:
    done = cli("devices", "--measure")
    assert done.err.splitlines() == ["measuring fake on mlx …", "measuring fake on cpu …"]
    figures = measured(folder)
    assert set(figures) == {"mlx", "cpu"}
    assert all(one.model == "fake" and one.texts_per_s > 0 and one.latency_ms > 0 for one in figures.values())
    shown = next(line for line in done.out.splitlines() if line.startswith("cpu"))
    assert shown.startswith("cpu       usable  x86_64, 2 cores; ")
    assert shown.endswith(" ms for one")


def test_measure_takes_another_model(cli: Cli, folder: Path) -> None:
    cli("devices", "--measure", "--model", "prompted")
    assert {one.model for one in measured(folder).values()} == {"prompted"}


def test_a_device_that_fails_keeps_no_old_figures(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mlx_is_unfit(device: str) -> None:
        if device == "mlx":
            raise BackendError("mlx is off by 1")

    cli("devices", "--measure")
    monkeypatch.setattr("semel.backends.devices.verify.verify", mlx_is_unfit)
    done = cli("devices", "--measure")
    assert done.code == 0
    assert "mlx: mlx is off by 1" in done.err
    assert set(measured(folder)) == {"cpu"}


def test_a_cross_encoder_is_not_measured(cli: Cli, folder: Path) -> None:
    done = cli("devices", "--measure", "--model", "reranker")
    assert "cpu: 'reranker' is a model of kind cross-encoder; choose one that embeds" in done.err
    assert measured(folder) == {}


def test_agree_compares_each_pair_of_devices(cli: Cli) -> None:
    done = cli("devices", "--agree", "fake")
    assert done.out == "mlx       cpu       min 1.000000  mean 1.000000\n"
    (pair,) = cli("devices", "--agree", "fake", "--json").json
    assert (pair["one"], pair["other"]) == ("mlx", "cpu")
    assert pair["min_cosine"] == pytest.approx(1, abs=1e-6)


def test_one_device_has_nothing_to_agree_with(cli: Cli, machine: list[DeviceInfo]) -> None:
    machine[:] = [CPU]
    done = cli("devices", "--agree", "fake")
    assert done.out == "fewer than two devices here run this model, so there is nothing to compare\n"
    assert json.loads(cli("devices", "--agree", "fake", "--json").out) == []
