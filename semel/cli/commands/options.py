"""Options that several commands share."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from semel.settings import Settings

Url = Annotated[str | None, typer.Option("--url", help="A semel server (default: SEMEL_URL, else that of 'semel up').")]
Model = Annotated[
    str | None,
    typer.Option("--model", help="A model of semel.toml, or of the server; default: its SEMEL_DEFAULT_MODEL."),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps, mlx, vulkan.")]
Prompt = Annotated[str, typer.Option("--prompt-name", help="Which of the model's prompts goes before each text.")]
TextField = Annotated[str, typer.Option("--text-field", help="Field or column that holds the text.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on past inputs that cannot be read, and list them.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
NoTruncate = Annotated[
    bool, typer.Option("--no-truncate", help="Fail texts above the model's limit instead of cutting.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def wanted_device(device: str, settings: "Settings") -> str:
    """What `--device` says, and SEMEL_DEVICE where it says auto."""
    return device if device != "auto" else settings.device
