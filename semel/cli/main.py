"""The `semel` command. It imports nothing heavy, so that `semel --help` answers at once."""

import importlib
import sys
from typing import Any

import typer

app = typer.Typer(
    help="Embed and rerank texts with a persistent vector cache: every text is embedded once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


_EXTRAS = {
    **dict.fromkeys(("celery", "fastapi", "fastapi_offline", "kombu", "orjson", "prometheus_client"), "server"),
    **dict.fromkeys(("python_multipart", "redis", "starlette", "uvicorn", "zstandard"), "server"),
    **dict.fromkeys(("sentence_transformers", "torch"), "cpu"),
    "flower": "flower",
    **dict.fromkeys(("matplotlib", "psutil"), "bench"),
    "psycopg": "postgres",
}
"""Package → the extra that installs it; the base installation has the client alone."""


def _add(module: str, name: str) -> None:
    command = importlib.import_module(f"semel.cli.commands.{module}")
    app.command(name)(getattr(command, name))


for _name in ("demo", "up", "serve", "worker", "embed", "rerank", "devices", "bench", "key"):
    _add(_name, _name)
_add("sync", "search")
for _name in ("jobs", "cache", "models", "sync"):
    app.add_typer(importlib.import_module(f"semel.cli.commands.{_name}").app, name=_name)


def _version(value: bool) -> None:  # typer's callback
    if value:
        from semel import __version__

        typer.echo(f"semel {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main(*args: Any) -> None:
    """Run a command. An error that semel raises is printed as one line, never as a traceback.

    Exit codes: 2 if the user's input cannot be used, 1 for any other error of semel, 130 after Ctrl-C.

    Args:
        args: the command line as one list, for tests; without it, `sys.argv` is read.
    """
    from semel import collector
    from semel.errors import SemelError

    if not args:  # the process is semel's own, not that of a test
        collector.relax()
    try:
        app(*args)
    except SemelError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(2 if error.status < 500 else 1)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `semel jobs list | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:  # a file or folder that cannot be read or written
        if error.filename is None:
            raise
        typer.secho(f"error: {error.filename}: {error.strerror}", err=True, fg="red")
        sys.exit(2)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        typer.secho(f"error: this command needs {error.name}: pip install 'semel[{extra}]'", err=True, fg="red")
        sys.exit(2)
