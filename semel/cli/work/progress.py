"""The progress bar: done, rate, hits, time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semel.values.job import Counts


class ProgressLine:
    """One bar on stderr; on something that is no terminal a line now and then."""

    def __init__(self, progress: Progress, label: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, rate="", hits="")

    def show(self, counts: Counts, *, total: int | None) -> None:
        """Draw the state: how many are done, how many of those the cache had."""
        self._progress.update(self._task, completed=counts.done, total=total)
        speed = self._progress.tasks[0].finished_speed or self._progress.tasks[0].speed
        rate = f"{speed:,.0f} texts/s" if speed else ""
        share = f"{counts.hit / counts.done:.0%} hits" if counts.done else ""
        self._progress.update(self._task, rate=rate, hits=share)


@contextmanager
def progress_line(label: str, *, total: int | None = None) -> Iterator[ProgressLine]:
    """A bar that stays on the screen, finished, when the block ends."""
    progress = Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[hits]}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        speed_estimate_period=10,
    )
    with progress:
        yield ProgressLine(progress, label, total)
