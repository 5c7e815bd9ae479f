"""`import semel` and `python -m semel`."""

import runpy
import subprocess
import sys

import pytest

import semel
from semel.client import AsyncClient, Client


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_a_client_is_imported_when_it_is_used(name: str) -> None:
    code = f"import sys, semel; assert 'semel.client' not in sys.modules; semel.{name}; assert 'httpx' in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_offers_both_clients_and_its_version() -> None:
    assert (semel.Client, semel.AsyncClient) == (Client, AsyncClient)
    assert set(semel.__all__) == {"AsyncClient", "Client", "Local", "__version__"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'semel' has no attribute 'Klient'"):
        semel.Klient  # noqa: B018


def test_the_module_runs_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["semel", "--version"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("semel", run_name="__main__")
    assert stopped.value.code in (0, None)
    assert semel.__version__ in capsys.readouterr().out
