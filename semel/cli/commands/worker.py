"""`semel worker`: run a worker for one device, or for all of them."""

from typing import Annotated

import typer

from semel.cli.commands import options


def worker(
    device: options.Device = "auto",
    every: Annotated[
        bool, typer.Option("--all", help="Run one process for every usable device; restart those that die.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Run this many processes that share the cores; only with --device cpu.")
    ] = 1,
) -> None:
    """Run a worker for one device until SIGTERM or Ctrl-C."""
    from semel.errors import BadInputError

    if every and device != "auto":
        raise BadInputError(f"--all uses every device and --device {device} one; give one of the two options")
    if every or processes > 1:
        _supervise(device, processes=processes, every=every)
    else:
        _run(device)


def _run(device: str) -> None:
    """Run the worker in this process."""
    from semel.backends.devices.find import pin
    from semel.log import configure_logs, get_log
    from semel.settings import load_settings
    from semel.tracing import close_traces, configure_traces

    settings = load_settings()
    configure_logs(level=settings.log_level, fmt=settings.log_format)
    configure_traces(settings.otlp_endpoint, service="semel-worker")
    requested = options.device_or_setting(device, settings)
    pin(requested)  # before anything imports a framework
    from semel.tasks.worker.models import choose_device_for
    from semel.tasks.worker.worker import Worker

    chosen, why = choose_device_for(settings, requested)
    get_log("worker").info("device chosen", device=chosen, why=why)
    try:
        Worker(settings, device=chosen).run()
    finally:
        close_traces()


def _supervise(device: str, *, processes: int, every: bool) -> None:
    """Run the workers in child processes, and restart those that die."""
    import sys

    from semel.cli.work.parts import usable_devices, worker_parts
    from semel.cli.work.stack import Stack, until_stopped
    from semel.errors import BadInputError, UnavailableError
    from semel.settings import load_settings
    from semel.values.device import DeviceInfo

    if device == "auto":
        device = load_settings().device
    if processes > 1 and not every and device != "cpu":
        raise BadInputError(
            "--processes shares the cores of the CPU: use it with --device cpu (each GPU runs one process)"
        )
    several = [DeviceInfo(device, usable=True, why="requested")] * processes
    devices = usable_devices() if every else several
    if not devices:
        raise UnavailableError("no device is usable here; 'semel devices' shows why")
    stack = Stack(sys.stderr)
    with until_stopped(stack) as stopping:
        for part in worker_parts(devices, environment={}):
            stack.start(part)
        while not stopping():
            stack.watch()
