"""`semel serve`."""

from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Default 8700.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow an address that others can reach without API keys.")
    ] = False,
) -> None:
    """Run the API, until SIGTERM or Ctrl-C. Needs a database, Redis and at least one worker beside it."""
    import socket

    import uvicorn

    from semel.api.app import create_app
    from semel.api.edge.foreign_pages import is_loopback
    from semel.errors import BadInputError, UnavailableError
    from semel.log import configure_logs
    from semel.settings import load_settings
    from semel.tracing import configure_traces

    settings = load_settings(host=host, port=port)
    configure_traces(settings.otlp_endpoint, service="semel-api")
    app = create_app(settings)
    if not (app.state.api_keys or insecure or is_loopback(settings.host)):
        raise BadInputError(
            f"{settings.host} can be reached by others and no API key is set: set SEMEL_API_KEYS (make one with "
            "'semel key'), listen on 127.0.0.1, or say --insecure"
        )
    configure_logs(level=settings.log_level, fmt=settings.log_format)
    # With the protocol named, asyncio turns Nagle's algorithm off; without, every answer waits 40 ms for an ACK.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another with --port"
        ) from None
    config = uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=5)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.live.stop()  # or uvicorn would wait for everybody who watches
            await super().shutdown(sockets)

    Server(config).run(sockets=[sock])
