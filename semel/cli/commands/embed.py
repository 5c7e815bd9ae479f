"""`semel embed INPUT -o OUTPUT`: in this process, or through a server."""

from pathlib import Path
from typing import Annotated

import typer

from semel.cli.commands import options


def embed(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help=".jsonl .csv .parquet .txt, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=".parquet .npy or .jsonl")],
    model: options.Model = None,
    device: options.Device = "auto",
    text_field: options.TextField = "text",
    prompt_name: options.Prompt = "",
    skip_bad: options.SkipBad = False,
    no_truncate: options.NoTruncate = False,
    overwrite: options.Overwrite = False,
    url: options.Url = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, even when SEMEL_URL is set.")] = False,
) -> None:
    """Embed the texts of a file or folder; order and duplicates are kept.

    What was ever computed is not computed again: after Ctrl-C the same command goes on where it stopped.
    """
    from semel.cli.work.embedding import EmbedOptions, embed_local
    from semel.cli.work.outputs import check_output
    from semel.cli.work.remote_embedding import embed_remote
    from semel.errors import BadInputError
    from semel.log import configure_logs
    from semel.settings import load_settings

    if local and url:
        raise BadInputError("--local and --url exclude each other")
    settings = load_settings(url=url)
    configure_logs(level="warning", fmt=settings.log_format)
    check_output(output, overwrite=overwrite)
    wanted = EmbedOptions(
        source=source,
        output=output,
        model=model,
        device=device,
        text_field=text_field,
        prompt_name=prompt_name,
        skip_bad=skip_bad,
        truncate=not no_truncate,
    )
    summary = embed_remote(settings, wanted) if settings.url and not local else embed_local(settings, wanted)
    for line in summary.lines(output):
        typer.echo(line, err=True)
