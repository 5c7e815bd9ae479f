"""`semel embed INPUT -o OUTPUT`: embed in this process, or through a server."""

from pathlib import Path
from typing import Annotated

import typer

from semel.cli.commands import options


def embed(
    source: options.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .parquet, .npy or .jsonl file to write.")],
    model: options.Model = None,
    device: options.Device = "auto",
    text_field: options.TextField = "text",
    prompt_name: options.Prompt = "",
    skip_bad: options.SkipBad = False,
    no_truncate: options.NoTruncate = False,
    overwrite: options.Overwrite = False,
    url: Annotated[str | None, typer.Option("--url", help="URL of a semel server. Default: SEMEL_URL.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Embed in this process even if SEMEL_URL is set.")] = False,
) -> None:
    """Embed the texts of a file or folder. Order and duplicates are kept.

    With a server, the texts are sent as a job; without one, they are embedded in this process. Texts that are in the
    cache are not computed again: after Ctrl-C, run the same command again to continue where it stopped.
    """
    from semel.cli.work.embedding import EmbedOptions, embed_local
    from semel.cli.work.outputs import check_output
    from semel.cli.work.remote_embedding import embed_remote
    from semel.errors import BadInputError
    from semel.log import configure_logs
    from semel.settings import load_settings

    if local and url:
        raise BadInputError("--local and --url cannot be used together; give one of them")
    settings = load_settings(url=url)
    configure_logs(level="warning", fmt=settings.log_format)
    check_output(output, overwrite=overwrite)
    request = EmbedOptions(
        source=source,
        output=output,
        model=model,
        device=device,
        text_field=text_field,
        prompt_name=prompt_name,
        skip_bad=skip_bad,
        truncate=not no_truncate,
    )
    summary = embed_remote(settings, request) if settings.url and not local else embed_local(settings, request)
    for line in summary.lines(output):
        typer.echo(line, err=True)
