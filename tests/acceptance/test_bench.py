"""`semel bench` for real: each model in a process of its own, and the whole service."""

from pathlib import Path

import pytest

from semel.cli.bench.run import Plan, measure
from semel.settings import load_settings

CONFIG = """
default_model = "fake"
[models.fake]
source = "fake:?dim=8"
[models.ranks]
source = "fake:?dim=1"
kind = "cross-encoder"
[models.absent]
source = "./no-such-folder"
"""


def test_everything_is_measured_once_for_each_model_and_what_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "semel.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEMEL_HOME", str(tmp_path / "home"))
    shown: dict[str, float] = {}
    plan = Plan(["cpu"], ["fake", "ranks", "absent"], seconds=2.0, rounds=2, starts=2)
    run = measure(plan, load_settings(), show=lambda name, part: shown.update({name: part}))
    assert list(run.left_out) == ["absent on cpu"]
    assert "no folder" in run.left_out["absent on cpu"]
    groups = {model: [f.group for f in run.figures if f.model == model] for model in ("fake", "ranks")}
    of_process = {"start", "one text", "batches", "rerank", "memory"}
    of_service = {"requests", "cache", "jobs of one text", "a killed worker"}
    assert set(groups["fake"]) == of_process | of_service
    assert set(groups["ranks"]) == of_process
    identities = [figure.identity for figure in run.figures]
    assert len(identities) == len(set(identities))
    for figure in run.figures:
        least = 0 if figure.group == "memory" else 1e-9
        assert all(value >= least for value in figure.values), figure
        once = figure.group in ("memory", "a killed worker")
        assert len(figure.values) == (1 if once else 2), figure
    assert shown["fake on cpu"] == shown["the service on cpu"] == 1.0
    assert not (tmp_path / "home").exists(), "nothing is stored in the user's own folder"
