"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semel.settings import Settings

Source = Annotated[Path, typer.Argument(metavar="INPUT", help="A .jsonl, .csv, .parquet or .txt file, or a folder.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="URL of a semel server. Default: SEMEL_URL, else http://127.0.0.1:8700."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="Name of a model in semel.toml or on the server. Default: its default model."),
]
Device = Annotated[str, typer.Option("--device", help="Device to use: auto, cpu, cuda, cuda:1, mps, mlx or vulkan.")]
Prompt = Annotated[str, typer.Option("--prompt-name", help="Name of the model's prompt to put before each text.")]
TextField = Annotated[str, typer.Option("--text-field", help="Field or column that holds the text.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip inputs that cannot be read, and list them.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
NoTruncate = Annotated[
    bool, typer.Option("--no-truncate", help="Let texts above the model's limit fail instead of truncating them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def device_or_setting(device: str, settings: "Settings") -> str:
    """Return the device of `--device`, or SEMEL_DEVICE if the option is `auto`."""
    return device if device != "auto" else settings.device
