"""Run the whole stack in the foreground until it is stopped (`semel up`)."""

import sys
from collections.abc import Sequence

from semel.cli.work.parts import (
    check_port,
    flower_part,
    has_flower,
    is_ready,
    redis_part,
    semel_part,
    usable_devices,
    worker_parts,
)
from semel.cli.work.stack import Stack, until_stopped
from semel.client import Client
from semel.errors import UnavailableError
from semel.settings import Settings, load_settings, own_redis_url
from semel.values.address import without_password
from semel.values.device import DeviceInfo


def run_stack(*, port: int | None, redis_port: int, flower_port: int | None) -> None:
    """Run Redis, the API, a worker for every usable device and Flower, until SIGTERM or Ctrl-C.

    Args:
        port: port of the API; None for that of the settings.
        redis_port: port of the Redis that is started if the settings name none.
        flower_port: port of Flower; None starts no Flower. It is not started either if it is not installed.

    Raises:
        UnavailableError: a port is taken, or no device is usable.
    """
    configured = load_settings()
    starts_redis = not ("redis_url" in configured.model_fields_set and configured.redis_url)
    settings = load_settings(port=port)
    check_port(settings.port, what="the API", option="--port")
    if starts_redis:
        check_port(redis_port, what="Redis", option="--redis-port (or use that Redis: SEMEL_REDIS_URL)")
    if not has_flower():
        flower_port = None
    if flower_port is not None:
        check_port(flower_port, what="Flower", option="--flower-port (or --no-flower)")
    devices = usable_devices()
    if not devices:
        raise UnavailableError("no device is usable here; 'semel devices' shows why")
    stack = Stack(sys.stderr)
    url = f"http://{settings.host}:{settings.port}"
    announced = False
    with until_stopped(stack) as stopping, Client(url, timeout_s=2) as client:
        if starts_redis:
            stack.start(redis_part(redis_port, settings.home))
        redis_url = own_redis_url(settings.home, redis_port) if starts_redis else settings.redis_url
        _start(stack, settings, devices, redis_url=redis_url, flower_port=flower_port)
        while not stopping():
            stack.watch()
            if not announced and is_ready(client):
                announced = True
                stack.log("semel", f"ready: {url}  (docs: {url}/docs, database: {without_password(settings.database)})")


def _start(
    stack: Stack, settings: Settings, devices: Sequence[DeviceInfo], *, redis_url: str, flower_port: int | None
) -> None:
    environment = {"SEMEL_REDIS_URL": redis_url, "SEMEL_PORT": str(settings.port)}
    if flower_port is not None:
        environment["SEMEL_TASK_EVENTS"] = "true"
    stack.start(semel_part("api", "serve", environment=environment))
    for part in worker_parts(devices, environment=environment):
        stack.start(part)
    if flower_port is not None:
        stack.start(flower_part(flower_port, redis_url=redis_url, folder=settings.home))
        stack.log("semel", f"flower: http://127.0.0.1:{flower_port}")
