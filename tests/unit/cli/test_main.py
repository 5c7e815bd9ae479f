"""The entry point: commands, help, exit codes, and errors as one line."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

import semel as package
from semel.cli.main import app
from semel.errors import BadInputError, SemelError, UnavailableError
from tests.support.cli import Cli

COMMANDS = {"demo", "up", "serve", "worker", "embed", "rerank", "devices", "key", "jobs", "cache", "models"}


def commands(command: Any, name: str = "semel") -> Iterator[tuple[str, Any]]:
    """Every command and group, by its full name."""
    yield name, command
    for child, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {child}")


ALL = dict(commands(typer.main.get_command(app)))


def test_the_version_is_printed(cli: Cli) -> None:
    done = cli("--version")
    assert (done.code, done.out) == (0, f"semel {package.__version__}\n")


def test_help_lists_every_command(cli: Cli) -> None:
    shown = cli("--help").out
    assert COMMANDS - set(shown.replace("│", " ").split()) == set()


@pytest.mark.parametrize("name", ALL)
def test_every_command_argument_and_option_has_a_help_text(name: str) -> None:
    command = ALL[name]
    assert command.help, name
    unexplained = [p.name for p in command.params if not getattr(p, "help", None)]
    assert not unexplained, name


def test_an_unknown_command_is_a_usage_error(cli: Cli) -> None:
    done = cli("embedd")
    assert done.code == 2
    assert "No such command 'embedd'" in done.err


@pytest.mark.parametrize(
    ("error", "code"), [(BadInputError("no such file"), 2), (UnavailableError("no server"), 1), (SemelError("odd"), 1)]
)
def test_an_error_is_one_line_and_its_kind_decides_the_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: SemelError, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("semel.cli.work.demonstration.run_demo", fail)
    done = cli("demo")
    assert (done.code, done.err.strip()) == (code, f"error: {error}")


def test_ctrl_c_ends_with_130_and_without_a_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("semel.cli.work.demonstration.run_demo", interrupt)
    done = cli("demo")
    assert done.code == 130
    assert "Traceback" not in done.err


def test_an_error_that_semel_does_not_raise_on_purpose_keeps_its_traceback(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semel.cli.work.demonstration.run_demo", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli("demo")
