"""`semel devices`."""

import typer

from semel.cli import options


def devices(as_json: options.AsJson = False) -> None:
    """Every device that this machine has or lacks, and why."""
    from semel.backends.devices import choose_device, find_devices
    from semel.values import as_plain

    found = find_devices()
    if as_json:
        import json

        typer.echo(json.dumps(as_plain(found)))
        return
    for device in found:
        typer.echo(f"{device.name:<8} {'usable' if device.usable else 'no    '}  {device.why}")
    if any(device.usable for device in found):
        name, why = choose_device("auto", found)
        typer.echo(f"auto takes {name}: {why}")
