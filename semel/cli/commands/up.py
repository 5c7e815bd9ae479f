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
    import sys

    from semel.cli.work import stack as parts
    from semel.client import Client
    from semel.errors import UnavailableError
    from semel.settings import load_settings

    said = load_settings()
    given = "redis_url" in said.model_fields_set and bool(said.redis_url)
    settings = load_settings(port=port, redis_url=None if given else f"redis://127.0.0.1:{redis_port}/0")
    parts.check_port(settings.port, what="the API", option="--port")
    if not given:
        parts.check_port(redis_port, what="Redis", option="--redis-port (or use that Redis: SEMEL_REDIS_URL)")
    flower = flower and parts.has_flower()
    if flower:
        parts.check_port(flower_port, what="Flower", option="--flower-port (or --no-flower)")
    devices = parts.usable_devices()
    if not devices:
        raise UnavailableError("no device is usable here; 'semel devices' says why")
    environment = {"SEMEL_REDIS_URL": settings.redis_url, "SEMEL_PORT": str(settings.port)}
    if flower:
        environment["SEMEL_TASK_EVENTS"] = "true"
    stack = parts.Stack(sys.stderr)
    url = f"http://{settings.host}:{settings.port}"
    announced = False
    with parts.until_stopped(stack) as stopping, Client(url, timeout_s=2) as client:
        if not given:
            stack.start(parts.redis_part(redis_port, settings.home))
        stack.start(parts.semel_part("api", "serve", environment=environment))
        for part in parts.worker_parts(devices, environment=environment):
            stack.start(part)
        if flower:
            stack.start(parts.flower_part(flower_port, redis_url=settings.redis_url, folder=settings.home))
            stack.say("semel", f"flower: http://127.0.0.1:{flower_port}")
        while not stopping():
            stack.watch()
            if not announced and parts.is_ready(client):
                announced = True
                stack.say("semel", f"ready: {url}  (docs: {url}/docs, database: {settings.database})")
