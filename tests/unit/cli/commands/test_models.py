"""`semel models …` with fake models, on a machine whose devices are stand-ins."""

from pathlib import Path

import numpy as np
import pytest

from semel.errors import BackendError
from semel.values.device import DeviceInfo
from tests.support.cli import Cli

HERE = [DeviceInfo("cuda:0", usable=False, why="no driver"), DeviceInfo("cpu", usable=True, why="a stand-in")]


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CPU that passes its self-test, and without a framework."""
    monkeypatch.setattr("semel.backends.devices.select.find_devices", lambda **_: HERE)
    monkeypatch.setattr("semel.backends.devices.verify.verify", lambda _: None)


@pytest.fixture(autouse=True)
def configured(folder: Path) -> None:
    """Also a model without files, one with files, one with a source of its own for MLX, and no built-in one."""
    toml = (folder / "semel.toml").read_text()
    toml += '[models.absent]\nsource = "/nowhere/at/all"\n[models.files]\nsource = "./files"\n'
    toml += '[models.own]\nsource = "fake:"\nsource_mlx = "fake:?dim=8"\n[models.minilm]\nsource = "fake:"\n'
    (folder / "semel.toml").write_text(toml)
    (folder / "files").mkdir()
    (folder / "files" / "model.safetensors").write_bytes(bytes(3_000_000))


def test_the_list_names_each_model_and_its_source(cli: Cli) -> None:
    lines = cli("models").out.splitlines()
    assert "fake         fake:?dim=16&max_tokens=20&fail_on=poison" in lines
    assert "  dimensions   16" in lines
    assert "  prompts      ['query', 'document']" in lines
    assert cli("models", "list").out.splitlines() == lines


def test_the_list_as_json_has_the_same_models(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert {"fake", "prompted", "reranker", "minilm", "absent"} <= set(rows)
    assert (rows["fake"]["dimensions"], rows["fake"]["max_tokens"]) == (16, 20)
    assert cli("models", "list", "--json").json == list(rows.values())


def test_a_model_without_files_is_listed_with_the_reason(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert "/nowhere/at/all" in rows["absent"]["error"]
    assert "error" not in rows["fake"]


def test_a_source_for_one_device_is_listed_under_its_own_name(cli: Cli) -> None:
    rows = {row["name"]: row for row in cli("models", "--json").json}
    assert rows["own@mlx"]["dimensions"] == 8


def test_pull_names_the_files_of_a_model(cli: Cli, folder: Path) -> None:
    done = cli("models", "pull", "files")
    assert (done.code, done.err) == (0, "files: ./files …\n")
    assert done.out == f"files: {folder / 'files'}, 3 MB of weights\n"


@pytest.mark.parametrize("name", ["absent", "nope"])
def test_pull_fails_with_the_reason(cli: Cli, name: str) -> None:
    done = cli("models", "pull", name)
    assert done.code != 0
    assert name in done.error


def test_check_prints_each_step(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    sensible = np.eye(8, 16, dtype=np.float32)
    sensible[1] = sensible[0]
    monkeypatch.setattr("semel.backends.devices.measure.embed_all", lambda *_: sensible)
    done = cli("models", "check", "fake")
    assert done.code == 0, done.err
    lines = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert "cpu" in lines["device"]
    assert lines["self-test"] == "the device computes the same numbers as the CPU"
    assert len(bytes.fromhex(lines["fingerprint"])) == 32
    assert all(figure in lines["meaning"] for figure in ("1.00", "0.00"))
    assert done.out.splitlines()[-1] == "fake works on cpu"


def test_a_cross_encoder_is_checked_without_its_meaning(cli: Cli) -> None:
    done = cli("models", "check", "reranker")
    assert done.code == 0, done.err
    assert "meaning" not in done.out


def test_a_model_that_makes_no_sense_fails_the_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    senseless = np.eye(8, 16, dtype=np.float32)
    senseless[2] = senseless[0]
    monkeypatch.setattr("semel.backends.devices.measure.embed_all", lambda *_: senseless)
    done = cli("models", "check", "fake")
    assert done.code == 1
    assert "model 'fake' finds 'cat' closer to 'stock market' than to 'feline' on cpu" in done.error
    assert "works on" not in done.out


def test_a_device_that_fails_its_self_test_fails_the_check(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(device: str) -> None:
        raise BackendError(f"{device} is off by 1")

    monkeypatch.setattr("semel.backends.devices.verify.verify", unfit)
    done = cli("models", "check", "fake")
    assert (done.code, done.error) == (1, "cpu is off by 1")
    assert "self-test" not in done.out


@pytest.mark.parametrize(("arguments", "named"), [(["nope"], "'nope'"), (["fake", "--device", "cuda"], "no driver")])
def test_what_is_not_here_cannot_be_checked(cli: Cli, arguments: list[str], named: str) -> None:
    done = cli("models", "check", *arguments)
    assert done.code == 2
    assert named in done.error
