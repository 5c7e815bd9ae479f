"""Fixtures that run commands in this process, each in a folder of its own, with fake models and a server."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from semel.cli.main import main
from tests.support.cli import FAKE_MODELS, AppTransport, Cli, Ended, exchange_over
from tests.support.service import Service, service


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a semel.toml, and an environment without the settings of this machine."""
    for name in [name for name in os.environ if name.startswith("SEMEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SEMEL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "semel.toml").write_text(FAKE_MODELS)
    return tmp_path


@pytest.fixture(autouse=True)
def no_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drop log lines. Commands configure the log of the whole process, which all tests share."""
    monkeypatch.setattr("semel.log.configure_logs", lambda **_: None)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run one command line through `main`, as the console script does."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code: Any = 0
        except SystemExit as ended:
            code = ended.code or 0
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return run


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The API with one worker in this process. Tests share it: each uses texts of its own."""
    with service(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest.fixture
def server(api: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The API, which answers every client, whatever its URL."""
    monkeypatch.setattr("semel.client.client.Exchange", exchange_over(AppTransport(api.http)))
    api.worker.paused = False
    return api
