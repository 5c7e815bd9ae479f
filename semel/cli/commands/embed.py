"""`semel embed INPUT -o OUTPUT`: embed in this process, or through a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.cli.work.embedding import EmbedOptions


def embed(
    source: options.Source,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .parquet, .npy or .jsonl file to write.")],
    model: options.Model = None,
    device: options.Device = "auto",
    text_field: options.TextField = "text",
    prompt_name: options.Prompt = "",
    input_type: options.InputType = "document",
    strict: options.Strict = False,
    include: options.Include = [],  # noqa: B006  # typer's way to say that it may be given any number of times
    no_truncate: options.NoTruncate = False,
    chunk: options.Chunk = False,
    chunk_tokens: options.ChunkTokens = None,
    chunk_overlap: options.ChunkOverlap = 0,
    overwrite: options.Overwrite = False,
    url: Annotated[str | None, typer.Option("--url", help="URL of a semel server. Default: SEMEL_URL.")] = None,
    local: Annotated[bool, typer.Option("--local", help="Embed in this process even if SEMEL_URL is set.")] = False,
) -> None:
    """Embed the texts of a file or folder. Order and duplicates are kept.

    With a server, the texts are sent as a job; without one, they are embedded in this process. Texts that are in the
    cache are not computed again: after Ctrl-C, run the same command again to continue where it stopped.

    With --chunk, each row of the output is a piece, and its id is that of its text with the number of the piece, as
    in "guide.md#3".
    """
    from semel.cli.work.embedding import EmbedOptions
    from semel.errors import BadInputError
    from semel.values.sync import ChunkOptions

    if local and url:
        raise BadInputError("--local and --url cannot be used together; give one of them")
    request = EmbedOptions(
        source=source,
        output=output,
        model=model,
        device=device,
        text_field=text_field,
        prompt_name=prompt_name,
        input_type=input_type,
        strict=strict,
        include=tuple(include),
        truncate=not no_truncate,
        chunk=ChunkOptions(chunk_tokens, chunk_overlap) if chunk or chunk_tokens or chunk_overlap else None,
    )
    _run(request, url=url, local=local, overwrite=overwrite)


def _run(request: "EmbedOptions", *, url: str | None, local: bool, overwrite: bool) -> None:
    from semel.cli.work.embedding import embed_local
    from semel.cli.work.outputs import check_output
    from semel.cli.work.remote_embedding import embed_remote
    from semel.log import configure_logs
    from semel.settings import load_settings

    settings = load_settings(url=url)
    configure_logs(level="warning", fmt=settings.log_format)
    check_output(request.output, overwrite=overwrite)
    summary = embed_remote(settings, request) if settings.url and not local else embed_local(settings, request)
    for line in summary.lines(request.output):
        typer.echo(line, err=True)
