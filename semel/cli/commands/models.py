"""`semel models …`: list, fetch and check the configured models."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.backends.models.source import ModelSource
    from semel.settings import Settings

Name = Annotated[str, typer.Argument(help="Name of a model, as 'semel models' lists it.")]

app = typer.Typer(help="List the configured models, fetch their files, and check that they work.")


@app.callback(invoke_without_command=True)
def _default(context: typer.Context, as_json: options.AsJson = False) -> None:
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the configured models, and for those without files how to get them. Nothing is downloaded."""
    from semel.settings import load_settings

    listed = [_row(source) for source in _sources(load_settings(), fetch=False)]
    if as_json:
        import json

        typer.echo(json.dumps(listed, indent=2))
        return
    for row in listed:
        typer.echo(f"{row['name']:<12} {row['source']}")
        for key in ("architecture", "dimensions", "max_tokens", "megabytes", "prompts", "weights", "error"):
            if row.get(key):
                typer.echo(f"  {key:<12} {row[key]}")


def _sources(settings: "Settings", *, fetch: bool) -> "Iterator[ModelSource]":
    """Each model, and each source that it has for one kind of device only (`NAME@DEVICE`)."""
    from semel.values.device import KINDS
    from semel.values.model import for_device

    entries = dict(settings.all_models)
    for kind in KINDS:
        entries |= {name: entry for name, entry in for_device(settings.all_models, kind).items() if "@" in name}
    yield from (_source(settings, name, entries, fetch=fetch) for name in entries)


def _source(settings: "Settings", name: str, entries: Any, *, fetch: bool = True) -> "ModelSource":
    from semel.backends.models.digests import Digests
    from semel.backends.models.source import find_model

    digests = Digests(settings.home / "digests.json")
    return find_model(name, entries, models_dir=settings.models_dir, digests=digests, fetch=fetch)


def _row(source: "ModelSource") -> dict[str, Any]:
    from semel.errors import ModelLoadError

    row: dict[str, Any] = {"name": source.name, "kind": source.entry.kind, "source": source.entry.source}
    try:
        described = source.described
        row |= {"dimensions": described.dim, "max_tokens": described.spec.max_tokens}
        row |= {"prompts": [p for p in described.prompts if p], "weights": described.spec.weights}
        row |= {"megabytes": source.weight_bytes >> 20}
        if not source.entry.source.startswith("fake:"):
            row["architecture"] = source.config.get("model_type", "")
    except ModelLoadError as error:
        row["error"] = str(error)
    return row


@app.command()
def pull(name: Name) -> None:
    """Fetch a model's files, or explain how to get them. Files that are on this machine are not fetched again."""
    from semel.settings import load_settings
    from semel.values.model import base_name

    settings = load_settings()
    sources = _sources(settings, fetch=True)
    found = [source for source in sources if base_name(source.name) == name or source.name == name]
    for source in found or [_source(settings, name, settings.all_models)]:  # this raises UnknownModelError
        typer.echo(f"{source.name}: {source.entry.source} …", err=True)
        typer.echo(f"{source.name}: {source.path}, {source.weight_bytes / 1e6:,.0f} MB of weights")


@app.command()
def check(name: Name, device: options.Device = "auto") -> None:
    """Load a model on a device and check that it works.

    Shows the device's self-test, the fingerprint, the memory, and whether texts of like meaning get similar vectors.
    """
    from semel.backends.devices.measure import embed_all, makes_sense
    from semel.backends.devices.usage import usage_of
    from semel.backends.devices.verify import verify
    from semel.backends.engine import Engine
    from semel.errors import BackendError
    from semel.log import configure_logs
    from semel.settings import load_settings
    from semel.tasks.worker.models import LoadedModels, choose_device_for

    settings = load_settings()
    configure_logs(level="error", fmt=settings.log_format)
    chosen, why = choose_device_for(settings, options.device_or_setting(device, settings))
    typer.echo(f"device       {chosen}: {why}")
    verify(chosen)
    typer.echo("self-test    the device computes the same numbers as the CPU")
    engine = Engine()
    try:
        model = LoadedModels(settings, engine, device=chosen).get(name)
        info, space = model.backend.get_model_info(), model.spaces[""]
        typer.echo(f"loaded       in {model.load_s:.1f} s by {info.backend}: {info.why}")
        typer.echo(f"fingerprint  {space.fingerprint.hex()}")
        used = usage_of(chosen).memory_bytes
        typer.echo(f"memory       {info.weight_bytes / 1e6:,.0f} MB of weights, {used / 1e6:,.0f} MB in all")
        if space.kind == "embed":
            sensible, figures = makes_sense(embed_all(engine, model.backend))
            if not sensible:
                raise BackendError(
                    f"model {name!r} finds 'cat' closer to 'stock market' than to 'feline' on {chosen} ({figures}): "
                    "check its files, or use another device"
                )
            typer.echo(f"meaning      {figures}")
    finally:
        engine.close()
    typer.echo(f"{name} works on {chosen}")
