"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semel.settings import Settings

Source = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT", help="A .jsonl, .json, .csv, .tsv, .parquet or .txt file (also .gz, .zst), or a folder."
    ),
]
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
Strict = Annotated[
    bool,
    typer.Option(
        "--strict/--skip-bad",
        help="Refuse the whole input if a text cannot be read. By default, such texts fail in their places.",
    ),
]
Include = Annotated[
    list[str],
    typer.Option("--include", help="In a folder, also read files of this name as text, such as '*.html'. Repeatable."),
]
InputType = Annotated[
    str,
    typer.Option(
        "--input-type", help="Kind of the texts, for the model's prompt: document (the default), query, or none."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output file if it exists.")]
NoTruncate = Annotated[
    bool, typer.Option("--no-truncate", help="Let texts above the model's limit fail instead of truncating them.")
]
Chunk = Annotated[bool, typer.Option("--chunk", help="Split long texts into pieces that the model reads whole.")]
ChunkTokens = Annotated[
    int | None, typer.Option("--chunk-tokens", min=1, help="Split at this many tokens instead; implies --chunk.")
]
ChunkOverlap = Annotated[
    int, typer.Option("--chunk-overlap", min=0, help="Tokens that neighbours share, at most; implies --chunk.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def device_or_setting(device: str, settings: "Settings") -> str:
    """Return the device of `--device`, or SEMEL_DEVICE if the option is `auto`."""
    return device if device != "auto" else settings.device
