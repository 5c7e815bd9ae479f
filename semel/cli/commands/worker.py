"""`semel worker`."""

from typing import Annotated

import typer

from semel.cli.commands import options


def worker(
    device: options.Device = "auto",
    every: Annotated[
        bool, typer.Option("--all", help="One process for every usable device; what dies is started again.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes for this device, which share its cores; the CPU only.")
    ] = 1,
) -> None:
    """Run a worker for one device, until SIGTERM or Ctrl-C."""
    from semel.errors import BadInputError

    if every and device != "auto":
        raise BadInputError(f"--all takes every device, --device {device} one: give one of the two")
    if every or processes > 1:
        _supervise(device, processes=processes, every=every)
    else:
        _run(device)


def _run(device: str) -> None:
    """In this process."""
    from semel.backends.devices.find import pin
    from semel.log import configure_logs, get_log
    from semel.settings import load_settings
    from semel.tracing import close_traces, configure_traces

    settings = load_settings()
    configure_logs(level=settings.log_level, fmt=settings.log_format)
    configure_traces(settings.otlp_endpoint, service="semel-worker")
    wanted = options.wanted_device(device, settings)
    pin(wanted)  # before anything imports a framework
    from semel.tasks.worker.models import choose_device_for
    from semel.tasks.worker.worker import Worker

    chosen, why = choose_device_for(settings, wanted)
    get_log("worker").info("device chosen", device=chosen, why=why)
    try:
        Worker(settings, device=chosen).run()
    finally:
        close_traces()


def _supervise(device: str, *, processes: int, every: bool) -> None:
    """Run child processes, and restart those that die."""
    import sys

    from semel.cli.work.parts import usable_devices, worker_parts
    from semel.cli.work.stack import Stack, until_stopped
    from semel.errors import BadInputError, UnavailableError
    from semel.settings import load_settings
    from semel.values.device import DeviceInfo

    if device == "auto":
        device = load_settings().device
    if processes > 1 and not every and device != "cpu":
        raise BadInputError("--processes shares the cores of the CPU: use it with --device cpu (a GPU takes one each)")
    several = [DeviceInfo(device, usable=True, why="asked for")] * processes
    devices = usable_devices() if every else several
    if not devices:
        raise UnavailableError("no device is usable here; 'semel devices' shows why")
    stack = Stack(sys.stderr)
    with until_stopped(stack) as stopping:
        for part in worker_parts(devices, environment={}):
            stack.start(part)
        while not stopping():
            stack.watch()
