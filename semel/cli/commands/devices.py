"""`semel devices`: list, measure and compare the devices of this machine."""

from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.backends.base import Backend
    from semel.backends.engine import Engine
    from semel.settings import Settings
    from semel.values.device import DeviceInfo


def devices(
    as_json: options.AsJson = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a short load on each usable device; 'auto' then takes the fastest.")
    ] = False,
    agree: Annotated[
        str | None,
        typer.Option("--agree", metavar="MODEL", help="Compare the vectors of this model on each pair of devices."),
    ] = None,
    model: options.Model = None,
) -> None:
    """List the devices that this machine has or lacks, and why each is usable or not."""
    from semel.backends.devices.find import find_devices
    from semel.log import configure_logs
    from semel.settings import load_settings

    settings = load_settings()
    configure_logs(level="error", fmt=settings.log_format)
    found = find_devices(software=settings.software_devices)
    if measure:
        _measure(settings, found, model or settings.default_model)
    if agree is not None:
        _agree(settings, found, agree, as_json=as_json)
    elif as_json:
        import json

        from pydantic_core import to_jsonable_python

        typer.echo(json.dumps(to_jsonable_python(found, bytes_mode="hex")))
    else:
        _show(settings, found)


def _show(settings: "Settings", found: "list[DeviceInfo]") -> None:
    from semel.backends.devices.select import Measurements, choose_device

    file = Measurements(settings.measurements)
    measured, default = file.read(), file.of_model(settings.default_model)
    for device in found:
        figures = measured.get(device.name)
        speed = f"; {figures.texts_per_s:,.0f} texts/s, {figures.latency_ms:.1f} ms for one" if figures else ""
        typer.echo(f"{device.name:<9} {'usable' if device.usable else 'no    '}  {device.why}{speed}")
    if any(device.usable for device in found):
        name, why = choose_device("auto", found, use_case=settings.use_case, measured=default)
        typer.echo(f"auto takes {name}: {why}")


def _measure(settings: "Settings", found: "list[DeviceInfo]", model: str) -> None:
    from semel.backends.devices.measure import measure
    from semel.backends.devices.select import Measurements

    file = Measurements(settings.measurements)
    measured = file.read()
    for device in _usable(found):
        typer.echo(f"measuring {model} on {device.name} …", err=True)
        loaded = _load(settings, device, model)
        if loaded is None:
            measured.pop(device.name, None)
            continue
        engine, backend = loaded
        measured[device.name] = measure(engine, backend, model=model)
        engine.close()
    file.write(measured)


def _agree(settings: "Settings", found: "list[DeviceInfo]", model: str, *, as_json: bool) -> None:
    from semel.backends.devices.measure import agreement, embed_all

    vectors = {}
    for device in _usable(found):
        typer.echo(f"embedding with {model} on {device.name} …", err=True)
        loaded = _load(settings, device, model)
        if loaded is not None:
            vectors[device.name] = embed_all(*loaded)
            loaded[0].close()
    pairs = agreement(vectors)
    if as_json:
        import json

        names = ("one", "other", "min_cosine", "mean_cosine")
        typer.echo(json.dumps([dict(zip(names, pair, strict=True)) for pair in pairs]))
        return
    if not pairs:
        typer.echo("fewer than two devices here run this model, so there is nothing to compare")
    for one, other, least, mean in pairs:
        typer.echo(f"{one:<9} {other:<9} min {least:.6f}  mean {mean:.6f}")


def _usable(found: "list[DeviceInfo]") -> "list[DeviceInfo]":
    return [device for device in found if device.usable]


def _load(settings: "Settings", device: "DeviceInfo", model: str) -> "tuple[Engine, Backend] | None":
    """Load a model on a device that passes its self-test; None, with the reason on stderr, if that fails."""
    from semel.backends.devices.verify import verify
    from semel.backends.engine import Engine
    from semel.errors import BackendError, ModelLoadError
    from semel.tasks.worker.models import LoadedModels

    engine = Engine()
    try:
        verify(device.name)
        loaded = LoadedModels(settings, engine, device=device.name).get(model)
        if loaded.spaces[""].kind != "embed":
            raise ModelLoadError(f"{model!r} is a model of kind {loaded.spaces[''].kind}; choose one that embeds")
        return engine, loaded.backend
    except (BackendError, ModelLoadError) as error:
        engine.close()
        typer.echo(f"{device.name}: {error}", err=True)
        return None
