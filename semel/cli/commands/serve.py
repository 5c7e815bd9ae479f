"""`semel serve`: run the API."""

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: SEMEL_HOST, else 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Port to listen on. Default: SEMEL_PORT, else 8700.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow an address that other machines can reach without API keys.")
    ] = False,
) -> None:
    """Run the API until SIGTERM or Ctrl-C. It needs a database, Redis and at least one worker."""
    from semel.cli.work.serve import run_api
    from semel.settings import load_settings

    run_api(load_settings(host=host, port=port), insecure=insecure)
