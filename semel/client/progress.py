"""A progress bar on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from semel.client.records import RemoteJob
from semel.client.upload import ignore


@contextmanager
def progress_bar(*, visible: bool) -> Iterator[Callable[[RemoteJob], None]]:
    """Show the progress of a job while the block runs; yields a function that the block calls with the job."""
    if not visible:
        yield ignore
        return
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

        def show(job: RemoteJob) -> None:
            progress.update(bar, description=job.model, total=job.total, completed=job.counts.done, hits=job.counts.hit)

        yield show
