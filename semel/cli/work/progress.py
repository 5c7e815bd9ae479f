"""A progress bar on stderr with texts done, rate, share of hits and time left."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semel.values.job import Counts


class ProgressLine:
    """One bar on stderr. If stderr is not a terminal, only its final state is printed."""

    def __init__(self, progress: Progress, label: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(label, total=total, rate="", hits="")

    def show(self, counts: Counts, *, total: int | None, in_hand: int = 0) -> None:
        """Draw the texts done so far and the share of them that were hits.

        Args:
            total: texts in all; None while that is not known.
            in_hand: texts that are done and not in `counts` yet.
        """
        self._progress.update(self._task, completed=counts.done + in_hand, total=total)
        speed = self._progress.tasks[0].finished_speed or self._progress.tasks[0].speed
        rate = f"{speed:,.0f} texts/s" if speed else ""
        share = f"{100 * counts.hit // counts.done}% hits" if counts.done else ""  # 100% only if all were
        self._progress.update(self._task, rate=rate, hits=share)

    def waits_for(self, what: str) -> None:
        """Say what the first text waits for, until `show` is called."""
        self._progress.update(self._task, rate=what)


@contextmanager
def progress_line(label: str, *, total: int | None = None) -> Iterator[ProgressLine]:
    """Show a bar while the block runs; it stays on the screen afterwards."""
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
