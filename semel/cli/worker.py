"""`semel worker`."""

from semel.cli import options


def worker(device: options.Device = "auto") -> None:
    """Run a worker for one device, until SIGTERM or Ctrl-C."""
    from semel.backends.devices import choose_device, find_devices
    from semel.log import configure_logs, get_log
    from semel.settings import load_settings
    from semel.tasks.worker import Worker

    settings = load_settings()
    configure_logs(level=settings.log_level, fmt=settings.log_format)
    wanted = device if device != "auto" else settings.device
    chosen, why = choose_device(wanted, find_devices())
    get_log("worker").info("device chosen", device=chosen, why=why)
    Worker(settings, device=chosen).run()
