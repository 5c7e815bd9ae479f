"""The demo: embed real text three times on the whole stack, then search it (`semel demo`)."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from semel.cli.work.docstrings import Docstring, standard_library_docstrings
from semel.cli.work.progress import progress_line
from semel.cli.work.stack import throwaway_stack
from semel.client import Client, RemoteJob
from semel.errors import SemelError
from semel.values.job import JobStatus
from semel.values.vectors import Vectors

QUESTIONS = {
    "how do I parse a JSON string?": "json.loads",
    "delete a directory and everything in it": "shutil.rmtree",
    "run another program and get its output": "subprocess.check_output",
}
"""Question → the function that should be among its answers."""

_CHANGED_SHARE = 0.02
_TOP = 3


@dataclass(frozen=True)
class Run:
    """One pass over the corpus.

    Attributes:
        distinct: distinct texts.
        seconds: from submission to completion.
    """

    label: str
    job: RemoteJob
    distinct: int
    seconds: float


def run_demo() -> None:
    """Start the stack in a temporary folder, embed the corpus three times, search it, and stop everything.

    Raises:
        UnavailableError: a part of the stack does not start.
        SemelError: a job did not complete.
    """
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="semel-demo-") as home,
        console.status("starting Redis, the API and a worker") as starting,
        throwaway_stack(Path(home)) as url,
    ):
        starting.stop()
        console.print(f"running at {url} (a free port)")
        with console.status("reading the docstrings of Python's standard library"):
            docstrings = standard_library_docstrings()
        functions = [d for d in docstrings if d.is_function]
        texts = [d.text for d in docstrings] + [f.summary for f in functions]
        console.print(
            f"corpus: {len(docstrings):,} docstrings and {len(functions):,} summaries of functions, "
            f"{len(set(texts)):,} of them distinct\n"
        )
        with Client(url) as client:
            runs = [_run(client, "first time", texts), _run(client, "the same again", texts)]
            runs.append(_run(client, "2 % changed", _changed(texts)))
            console.print()
            vectors = client.results(runs[0].job.id)
            _ask(console, client, functions, vectors[len(docstrings) :])
        console.print(_table(runs))
    console.print(
        "Everything is stopped again. Next steps:\n"
        "  semel up                                  the same stack, until Ctrl-C\n"
        "  semel embed texts.txt -o vectors.parquet  embed without a server\n"
        "  semel jobs submit texts.jsonl             submit a job to 'semel up'\n"
        "  docs/tutorial.md                          the full tour"
    )


def _run(client: Client, label: str, texts: Sequence[str]) -> Run:
    started = time.perf_counter()
    with progress_line(label, total=len(texts)) as line:
        job = client.submit(texts, metadata={"demo": label})
        job = client.wait(job.id, on_progress=lambda job: line.show(job.counts, total=job.total))
    if job.status is not JobStatus.COMPLETED or job.counts.failed:
        reason = job.error.message if job.error else f"{job.counts.failed} texts failed"
        raise SemelError(f"the demo's job ended as {job.status}: {reason}")
    return Run(label, job, len(set(texts)), time.perf_counter() - started)


def _changed(texts: Sequence[str]) -> list[str]:
    """The corpus after an edit: 2 % of the distinct texts have a new sentence, in every place where they occur."""
    distinct = list(dict.fromkeys(texts))
    step = round(1 / _CHANGED_SHARE)
    new = {text: f"{text}\n\nChanged since yesterday." for text in distinct[::step]}
    return [new.get(text, text) for text in texts]


def _ask(console: Console, client: Client, functions: Sequence[Docstring], vectors: Vectors) -> None:
    """Print the functions whose summaries are nearest to each question; the vectors have length 1."""
    for question, vector in zip(QUESTIONS, client.embed(list(QUESTIONS)), strict=True):
        scores = vectors @ vector
        console.print(f"[bold]{question}[/bold]")
        for i in np.argsort(-scores)[:_TOP]:
            console.print(f"   {scores[i]:.2f}  {functions[i].name}")
    console.print()


def _table(runs: Sequence[Run]) -> Table:
    columns = ("run", "texts", "distinct", "computed", "hits", "coalesced", "s", "texts/s")
    table = Table(*columns, title="every text is embedded once", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for run in runs:
        c = run.job.counts
        numbers = (run.job.total, run.distinct, c.computed, c.hit, c.coalesced)
        rate = run.job.total / run.seconds
        table.add_row(run.label, *(f"{n:,}" for n in numbers), f"{run.seconds:.1f}", f"{rate:,.0f}")
    for column in table.columns[1:]:
        column.justify = "right"
    return table
