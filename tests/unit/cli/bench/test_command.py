"""`semel bench`: its options, its files and its exit codes. The measurements themselves are replaced."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semel.cli import main as cli
from semel.cli.bench import run as run_module
from semel.cli.bench.figures import Figure, Run
from semel.cli.bench.run import Plan, plan
from semel.settings import load_settings


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Runs the command in an empty folder; returns what it plans to measure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMEL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SEMEL_CONFIG", raising=False)
    plans: list[Plan] = []

    def measure(chosen: Plan, _settings: object, *, show: Callable[[str, float], None]) -> Run:
        plans.append(chosen)
        show("something", 0.5)
        rate = 1000.0 / len(plans)
        return Run({"semel": "1"}, [Figure("batches", "one", "cpu", "m", "texts/s", [rate, rate], True)], {})

    monkeypatch.setattr(run_module, "measure", measure)
    return plans


def bench(*arguments: str) -> int:
    """The exit code."""
    try:
        cli.main(["bench", "--device", "cpu", *arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_figures_and_the_charts_are_written(planned: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert bench() == 0
    assert json.loads(Path("bench.json").read_text())["figures"][0]["values"] == [1000, 1000]
    assert "<svg" in Path("bench.html").read_text()
    assert "1,000 texts/s" in capsys.readouterr().out
    assert (planned[0].devices, planned[0].models) == (["cpu"], list(load_settings().models))


def test_existing_files_are_kept_unless_they_may_be_replaced(
    planned: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bench.html").write_text("mine")
    assert bench() == 2
    assert "bench.html exists; give --overwrite" in capsys.readouterr().err
    assert not planned, "nothing is measured for nothing"
    assert bench("--overwrite") == 0


def test_what_is_worse_than_before_is_named_and_exits_with_1(
    planned: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("-o", "old.json") == 0
    assert bench("--overwrite", "--compare", "old.json") == 1
    captured = capsys.readouterr()
    assert "0.50 × as good, worse" in " ".join(captured.out.split())
    assert "1 figures are worse than before" in captured.err
    assert "batches · one · cpu · m" in captured.err
    assert bench("--overwrite", "--compare", "bench.json", "-o", "third.json") == 1


def test_an_unusable_device_and_an_unknown_model_are_refused(
    planned: list[Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--device", "cuda:7") == 2
    assert "'cuda:7' is not usable here ('semel devices' says why)" in capsys.readouterr().err
    assert bench("--model", "nobody") == 2
    assert "nobody" in capsys.readouterr().err
    assert not planned


@pytest.mark.parametrize(("quick", "limit_s"), [(True, 60), (False, 300)])
def test_a_plan_keeps_its_time_for_any_number_of_devices_that_fit(quick: bool, limit_s: float) -> None:
    made = plan(["cpu"], ["minilm"], quick=quick)
    assert made.seconds * 2 + 8 * made.starts + 20 <= limit_s
    assert plan(["cpu", "mlx", "vulkan"], ["a", "b", "c"], quick=quick).seconds >= 4


def test_a_device_that_fails_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semel.cli.bench.run import measure
    from semel.errors import UnavailableError

    def fails(*_: Any, **__: Any) -> Any:
        raise UnavailableError("the device is lost")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_module, "_in_child", fails)
    monkeypatch.setattr(run_module, "measure_service", fails)
    run = measure(Plan(["cpu"], ["m"], 1, 1, 1), load_settings(), show=lambda *_: None)
    assert run.left_out == {"m on cpu": "the device is lost", "the service on cpu": "the device is lost"}
    assert not run.figures
