"""`semel rerank`: rank texts by relevance, through a server."""

from typing import Annotated

import typer

from semel.cli.commands import options


def rerank(
    query: Annotated[str, typer.Argument(help="The query that the texts are ranked for.")],
    source: options.Source,
    model: options.Model = None,
    text_field: options.TextField = "text",
    strict: options.Strict = False,
    top_n: Annotated[int, typer.Option("--top-n", min=1, help="How many texts to print.")] = 10,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the texts that are most relevant to a query, the most relevant first."""
    from semel.cli.work.skipped import print_skipped
    from semel.client import Client
    from semel.rows import read_items
    from semel.settings import load_settings

    settings = load_settings(url=url)
    items = list(read_items(source, text_field=text_field, strict=strict, max_text_bytes=settings.max_text_bytes))
    good = [item for item in items if item.text is not None]
    texts = [str(item.text) for item in good]
    print_skipped([item for item in items if item.text is None], "the printed numbers are positions in the input")
    with Client(settings.url) as client:
        ranked = client.rerank(query, texts, model=model, top_n=top_n)
    if as_json:
        import json

        rows = [{"index": good[r.index].index, "score": r.score, "text": texts[r.index]} for r in ranked]
        typer.echo(json.dumps(rows, indent=2))
        return
    for r in ranked:
        first_line = texts[r.index].strip().partition("\n")[0]
        typer.echo(f"{r.score:7.4f}  {good[r.index].index:>6}  {first_line[:100]}")
