"""Which lane the device serves next, and whether its batches should be short."""

import math
import time
from collections.abc import Collection

from semel.values.text import Lane

_SHORT_BATCHES_S = 10.0
"""Batches stay short for this long after an interactive text has waited: where one came, another one will."""

_MAX_INTERACTIVE_RUN = 8
"""Interactive batches in a row while bulk texts wait; after them comes a bulk batch, or bulk would starve."""


class Lanes:
    """The order of the lanes on one device. Used by its thread only."""

    def __init__(self) -> None:
        self._interactive_run = 0
        self._interactive_at = -math.inf  # when an interactive text was last waiting, in monotonic seconds

    def choose(self, waiting: Collection[Lane]) -> Lane:
        """Return the lane of the next batch.

        Args:
            waiting: the lanes with a text that waits, at least one.
        """
        lane = Lane.INTERACTIVE if Lane.INTERACTIVE in waiting else Lane.BULK
        if lane is Lane.INTERACTIVE:
            self._interactive_at = time.monotonic()
        if Lane.BULK in waiting and self._interactive_run >= _MAX_INTERACTIVE_RUN:
            lane = Lane.BULK
        self._interactive_run = self._interactive_run + 1 if lane is Lane.INTERACTIVE else 0
        return lane

    @property
    def short_batches(self) -> bool:
        """Whether the next batch should end soon, because interactive texts come."""
        return time.monotonic() < self._interactive_at + _SHORT_BATCHES_S
