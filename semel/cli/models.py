"""`semel models`."""

import typer

from semel.cli import options


def models(as_json: options.AsJson = False) -> None:
    """The configured models: where their files are, or how to get them."""
    from semel.backends.digests import Digests
    from semel.backends.registry import find_model
    from semel.errors import ModelLoadError
    from semel.settings import load_settings

    settings = load_settings()
    digests = Digests(settings.home / "digests.json")
    listed = []
    for name in settings.all_models:
        source = find_model(name, settings.all_models, models_dir=settings.models_dir, digests=digests)
        row: dict[str, object] = {"name": name, "source": source.entry.source}
        try:
            described = source.described
            row |= {"dimensions": described.dim, "max_tokens": described.spec.max_tokens}
            row |= {"prompts": [p for p in described.prompts if p], "weights": described.spec.weights}
        except ModelLoadError as error:
            row["error"] = str(error)
        listed.append(row)
    if as_json:
        import json

        typer.echo(json.dumps(listed, indent=2))
        return
    for row in listed:
        typer.echo(f"{row['name']:<12} {row['source']}")
        for key in ("dimensions", "max_tokens", "prompts", "weights", "error"):
            if row.get(key):
                typer.echo(f"  {key:<10} {row[key]}")
