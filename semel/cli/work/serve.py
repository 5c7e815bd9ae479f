"""Run the API on a socket until it is stopped (`semel serve`)."""

import socket

import uvicorn

from semel import collector
from semel.api.app import create_app
from semel.api.edge.connections import BoundedHttp, connection_limit
from semel.errors import BadInputError, UnavailableError
from semel.log import configure_logs
from semel.settings import Settings
from semel.tracing import configure_traces
from semel.values.address import is_loopback

_KEEP_ALIVE_S = 75
"""An idle connection is kept for longer than balancers and Node's clients keep theirs: who closes first loses requests
of the other one. nginx has the same default."""


def run_api(settings: Settings, *, insecure: bool) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        insecure: allow an address that other machines can reach without API keys.

    Raises:
        BadInputError: other machines can reach the address, there is no API key, and `insecure` is False.
        UnavailableError: the port is taken.
    """
    configure_traces(settings.otlp_endpoint, service="semel-api")
    app = create_app(settings)
    if not (app.state.api_keys or insecure or is_loopback(settings.host)):
        raise BadInputError(
            f"other machines can reach {settings.host}, and no API key is set: set SEMEL_API_KEYS ('semel key' makes a "
            "key), listen on 127.0.0.1, or use --insecure"
        )
    configure_logs(level=settings.log_level, fmt=settings.log_format)
    BoundedHttp.limit = connection_limit()
    config = uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
    )
    collector.keep_loaded()

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.lives.stop()  # or uvicorn would wait for every open page to close its stream
            await super().shutdown(sockets)

    Server(config).run(sockets=[_listening(settings.host, settings.port)])


def _listening(host: str, port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only if the protocol is named; with it, every answer waits 40 ms for an ACK.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise UnavailableError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
        ) from None
    return sock
