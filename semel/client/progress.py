"""Progress on stderr, or below the cell of a notebook."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from semel.client.records import RemoteJob

Show: TypeAlias = Callable[[str, int, int, int], None]
"""Called with a label, the texts that are done, all texts, and the hits among those that are done."""


@contextmanager
def progress_bar(*, visible: bool) -> Iterator[Show]:
    """Show progress while the block runs; yields a function that the block calls."""
    if not visible:
        yield lambda *_: None
    elif _in_notebook():
        yield _below_the_cell()
    else:
        with _on_stderr() as show:
            yield show


def of_job(show: Show) -> Callable[[RemoteJob], None]:
    """Shows the progress of a job."""
    return lambda job: show(job.model, job.done, job.total, job.counts.hit)


@contextmanager
def _on_stderr() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hits]} hits"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sending", total=None, hits=0)

        def show(label: str, done: int, total: int, hits: int) -> None:
            progress.update(bar, description=label, total=total, completed=done, hits=hits)

        yield show


def _in_notebook() -> bool:
    """Whether this code runs in a cell of a notebook, and not in a terminal."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


def _below_the_cell() -> Show:
    """Updates one line of text below the cell: every notebook can show it, rich's bar needs the package ipywidgets."""
    from IPython.display import display

    started = time.monotonic()
    handle = display({"text/plain": "sending …"}, raw=True, display_id=True)

    def show(label: str, done: int, total: int, hits: int) -> None:
        rate = done / max(time.monotonic() - started, 0.001)
        left = f", {(total - done) / rate:,.0f} s left" if 0 < done < total else ""
        share = f" ({done / total:.0%})" if total else ""
        line = f"{label}: {done:,} of {total:,} texts{share}, {hits:,} hits, {rate:,.0f} texts/s{left}"
        handle.update({"text/plain": line}, raw=True)

    return show
