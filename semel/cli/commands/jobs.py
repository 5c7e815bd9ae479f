"""`semel jobs …`: submit jobs to a server and follow them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semel.cli.commands import options

if TYPE_CHECKING:
    from semel.client import Client, RemoteJob
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
    skip_bad: options.SkipBad = False,
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

    skipped: list[Item] = []
    rows = _rows(source, skipped, text_field=text_field, skip_bad=skip_bad)
    with _client(url) as client, progress_line("sending texts") as line:
        job = client.submit(
            rows,
            text_field=text_field,
            model=model,
            device=device,
            prompt_name=prompt_name,
            truncate=not no_truncate,
            if_no_worker="fail" if fail_if_no_worker else "wait",
            on_sent=lambda count: line.show(Counts(computed=count), total=None),
        )
    print_skipped(skipped, "the rows of the results are numbered without them")
    typer.echo(job.id)


def _rows(source: Path, skipped: "list[Item]", *, text_field: str, skip_bad: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of the input that have a text, and add the others to `skipped`."""
    from semel.rows import read_items
    from semel.settings import load_settings

    limit = load_settings().max_text_bytes
    for item in read_items(source, text_field=text_field, skip_bad=skip_bad, max_text_bytes=limit, whole=True):
        if item.text is None:
            skipped.append(item)
        else:
            yield item.fields


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
        f"{c.coalesced:,} coalesced, {c.failed:,} failed; {c.truncated:,} truncated"
    )
    if job.completed_at:
        typer.echo(f"  took     {job.completed_at - job.created_at:.1f} s")
    if job.error:
        typer.echo(f"  error    {job.error.message}")


def _print_json(value: object) -> None:
    import json

    from pydantic_core import to_jsonable_python

    typer.echo(json.dumps(to_jsonable_python(value, bytes_mode="hex"), indent=2))
