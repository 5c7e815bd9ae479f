"""`semel up`: the whole stack in the foreground."""

from typing import Annotated

import typer


def up(
    port: Annotated[int | None, typer.Option("--port", help="For the API; default 8700.")] = None,
    redis_port: Annotated[int, typer.Option("--redis-port", help="For the Redis that it starts.")] = 6390,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Show the queues and tasks in Flower.")] = True,
    flower_port: Annotated[int, typer.Option("--flower-port", help="For Flower.")] = 5555,
) -> None:
    """Run Redis, the API, a worker for every usable device and Flower, until Ctrl-C. What dies is started again.

    With SEMEL_REDIS_URL set, or redis_url in semel.toml, that Redis is used and none is started.
    """
    from semel.cli.work.up import run_stack

    run_stack(port=port, redis_port=redis_port, flower_port=flower_port if flower else None)
