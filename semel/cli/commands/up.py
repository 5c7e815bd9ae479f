"""`semel up`: run the whole stack in the foreground."""

from typing import Annotated

import typer


def up(
    port: Annotated[
        int | None, typer.Option("--port", help="Port for the API. Default: SEMEL_PORT, else 8700.")
    ] = None,
    redis_port: Annotated[int, typer.Option("--redis-port", help="Port for the Redis that is started.")] = 6390,
    flower: Annotated[
        bool, typer.Option("--flower/--no-flower", help="Also run Flower, which shows queues and tasks.")
    ] = True,
    flower_port: Annotated[int, typer.Option("--flower-port", help="Port for Flower.")] = 5555,
) -> None:
    """Run Redis, the API, a worker for every usable device and Flower until Ctrl-C.

    A process that dies is started again. If SEMEL_REDIS_URL, or redis_url in semel.toml, names a Redis, that one is
    used and none is started.
    """
    from semel.cli.work.up import run_stack

    run_stack(port=port, redis_port=redis_port, flower_port=flower_port if flower else None)
