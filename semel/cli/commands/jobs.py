"""`semel jobs …`: submit jobs to a server and follow them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.client import Client, Estimate, RemoteJob
    from semel.rows import Item

app = typer.Typer(help="Submit jobs to a server, follow them and download their results.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job, as 'semel jobs list' shows it.")]


def _client(url: str | None) -> "Client":
    from semel.client import Client
    from semel.settings import load_settings

    return Client(load_settings(url=url).url)


@app.command()
def submit(
    source: options.Source,
    model: options.Model = None,
    device: options.Device = "auto",
    text_field: options.TextField = "text",
    prompt_name: options.Prompt = "",
    input_type: options.InputType = "document",
    strict: options.Strict = False,
    include: options.Include = [],  # noqa: B006  # typer's way to say that it may be given any number of times
    no_truncate: options.NoTruncate = False,
    fail_if_no_worker: Annotated[
        bool,
        typer.Option("--fail-if-no-worker", help="Let the job fail, instead of wait, if no worker serves its model."),
    ] = False,
    url: options.Url = None,
) -> None:
    """Send the texts of a file or folder as a job and print its id.

    The other fields or columns of each row come back with its result.
    """
    from semel.cli.work.progress import progress_line
    from semel.cli.work.skipped import print_skipped
    from semel.values.job import Counts

    bad: list[Item] = []
    rows = _rows(source, bad, text_field=text_field, strict=strict, include=include)
    with ExitStack() as stack:
        stack.callback(lambda: print_skipped(bad, "they fail in their places"))
        client, line = stack.enter_context(_client(url)), stack.enter_context(progress_line("sending texts"))
        job = client.submit(
            rows,
            text_field=text_field,
            model=model,
            device=device,
            prompt_name=prompt_name,
            input_type=None if prompt_name else input_type,
            strict=strict,
            truncate=not no_truncate,
            if_no_worker="fail" if fail_if_no_worker else "wait",
            on_sent=lambda count: line.show(Counts(computed=count), total=None),
        )
    typer.echo(job.id)


@app.command()
def estimate(
    source: options.Source,
    model: options.Model = None,
    device: options.Device = "auto",
    text_field: options.TextField = "text",
    prompt_name: options.Prompt = "",
    input_type: options.InputType = "document",
    strict: options.Strict = False,
    include: options.Include = [],  # noqa: B006  # as of `submit`
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a job with the texts of a file or folder would do: hits, tokens, time, disk and cost.

    Nothing is stored or computed.
    """
    from semel.cli.work.skipped import print_skipped

    bad: list[Item] = []
    rows = _rows(source, bad, text_field=text_field, strict=strict, include=include)
    with ExitStack() as stack:
        stack.callback(lambda: print_skipped(bad, "they would fail in their places"))
        found = stack.enter_context(_client(url)).estimate(
            rows,
            text_field=text_field,
            model=model,
            device=device,
            prompt_name=prompt_name,
            input_type=None if prompt_name else input_type,
            strict=strict,
        )
    if as_json:
        _print_json(found)
    else:
        _print_estimate(found)


def _rows(
    source: Path, bad: "list[Item]", *, text_field: str, strict: bool, include: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the input. Those without a readable text are sent without one, and are added to `bad`."""
    from semel.rows import read_items
    from semel.settings import load_settings

    limit = load_settings().max_text_bytes
    items = read_items(source, text_field=text_field, strict=strict, max_text_bytes=limit, whole=True, include=include)
    for item in items:
        if item.text is None:
            bad.append(item)
            yield {"id": item.id, text_field: None}
        else:
            yield {**item.fields, **({} if item.id is None else {"id": item.id})}


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many jobs to list.")] = 20,
    status: Annotated[str | None, typer.Option(help="List only jobs with this status.")] = None,
    model: Annotated[str | None, typer.Option(help="List only jobs of this model.")] = None,
    url: options.Url = None,
    as_json: options.AsJson = False,
) -> None:
    """List the newest jobs."""
    with _client(url) as client:
        found = client.jobs(limit=limit, status=status, model=model)
    if as_json:
        _print_json(found)
        return
    from rich.console import Console
    from rich.table import Column, Table

    whole = Column("job", min_width=max((len(job.id) for job in found), default=0))  # never cut an id
    table = Table(whole, "status", "model", "device", "done", "total", "hits", "failed", box=None)
    for job in found:
        c = job.counts
        table.add_row(
            job.id, job.status, job.model, job.device, f"{c.done:,}", f"{job.total:,}", f"{c.hit:,}", f"{c.failed:,}"
        )
    Console().print(table if found else "no jobs found")


@app.command()
def show(job_id: JobId, url: options.Url = None, as_json: options.AsJson = False) -> None:
    """Show a job: its status, its counts, its device and why that device was chosen."""
    with _client(url) as client:
        job = client.job(job_id)
    if as_json:
        _print_json(job)
    else:
        _print_job(job)


@app.command()
def wait(
    job_id: JobId,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", help="Stop waiting after this many seconds. Default: no limit.")
    ] = None,
    url: options.Url = None,
) -> None:
    """Wait until a job ends, with a progress bar. The exit code is 0 if the job completed, else 1."""
    from semel.cli.work.progress import progress_line
    from semel.values.job import JobStatus

    with _client(url) as client:
        job = client.job(job_id)
        with progress_line(f"{job.model} on {job.device}", total=job.total) as line:
            job = client.wait(job_id, timeout_s=timeout_s, on_progress=lambda j: line.show(j.counts, total=j.total))
    _print_job(job)
    if job.status is not JobStatus.COMPLETED:
        raise typer.Exit(1)


@app.command()
def cancel(job_id: JobId, url: options.Url = None) -> None:
    """Cancel a job. Vectors that were computed stay in the cache."""
    with _client(url) as client:
        typer.echo(f"{job_id} is {client.cancel(job_id).status}")


@app.command()
def retry(job_id: JobId, url: options.Url = None) -> None:
    """Retry what failed in a job that has ended."""
    with _client(url) as client:
        typer.echo(f"{job_id} is {client.retry(job_id).status}")


@app.command()
def delete(job_id: JobId, url: options.Url = None) -> None:
    """Delete a job that has ended. Its vectors stay in the cache."""
    with _client(url) as client:
        client.delete(job_id)


@app.command()
def results(
    job_id: JobId,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .npy, .parquet, .ndjson, .jsonl or .arrow file to write.")
    ],
    overwrite: options.Overwrite = False,
    url: options.Url = None,
) -> None:
    """Download the vectors of a completed job into a file."""
    from semel.atomic_write import atomic_write
    from semel.cli.work.outputs import check_folder
    from semel.errors import BadInputError

    formats = {".npy": "npy", ".parquet": "parquet", ".ndjson": "ndjson", ".jsonl": "ndjson", ".arrow": "arrow"}
    if output.suffix not in formats:
        raise BadInputError(f"{output}: unknown output format {output.suffix!r} (known: {', '.join(formats)})")
    if output.exists() and not overwrite:
        raise BadInputError(f"{output} exists; use --overwrite to replace it")
    check_folder(output)
    with (
        _client(url) as client,
        client.results_stream(job_id, fmt=formats[output.suffix]) as parts,
        atomic_write(output) as file,
    ):
        for data in parts:
            file.write(data)
    typer.echo(str(output), err=True)


def _print_job(job: "RemoteJob") -> None:
    c = job.counts
    typer.echo(f"{job.id}  {job.status}")
    typer.echo(f"  model    {job.model} ({job.dimensions} dimensions)")
    typer.echo(f"  device   {job.why}")
    typer.echo(
        f"  texts    {c.done:,} of {job.total:,}: {c.computed:,} computed, {c.hit:,} hits, "
        f"{c.coalesced:,} coalesced, {c.failed:,} failed"
    )
    if c.truncated:
        typer.echo(f"  cut      {c.truncated:,} texts: about {c.read.unread_share:.0%} of all tokens were not read")
    if job.completed_at:
        typer.echo(f"  took     {job.completed_at - job.created_at:.1f} s")
    if job.error:
        typer.echo(f"  error    {job.error.message}")


def _print_estimate(found: "Estimate") -> None:
    from rich.filesize import decimal

    if found.compute_s is None:
        time = f"the speed of {found.model} on {found.device} is not measured yet"
    else:
        time = f"about {found.compute_s:,.0f} s, after {found.queue_s:,.0f} s of other work"
    typer.echo(f"  model    {found.model}")
    typer.echo(f"  device   {found.why}")
    typer.echo(f"  texts    {found.texts:,}: {found.distinct:,} distinct, {found.cached:,} hits, {found.failed:,} bad")
    typer.echo(f"  compute  {found.to_compute:,} texts of about {found.tokens:,} tokens")
    if found.truncated:
        typer.echo(f"  cut      about {found.truncated:,} texts: {found.unread_share:.0%} of all tokens are not read")
    typer.echo(f"  time     {time}")
    typer.echo(f"  disk     {'unknown' if found.disk_bytes is None else f'about {decimal(found.disk_bytes)}'}")
    if found.cost is not None:
        typer.echo(f"  cost     {found.cost:,.2f}")


def _print_json(value: object) -> None:
    import json

    from pydantic_core import to_jsonable_python

    typer.echo(json.dumps(to_jsonable_python(value, bytes_mode="hex"), indent=2))
