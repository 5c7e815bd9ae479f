"""Two runs next to each other: which figures got worse by more than their noise?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from semel.cli.bench.figures import Figure, Run

_LEAST_NOISE = 0.1
"""Rounds of one run are closer to each other than those of two runs: of 34 figures of one program, with 0.05 three
differed by more than their noise."""

_LEAST_MB = 1.0
"""Smaller amounts of memory are what the allocator had left over."""

_UNKNOWN_NOISE = 0.25
"""What a figure may change by that was measured once, such as the time until a killed worker serves again."""


@dataclass(frozen=True)
class Change:
    """A figure of two runs.

    Attributes:
        factor: how many times as good the new one is; below 1 it is worse.
        noise: the change that two runs of the same program may show, as a share.
    """

    old: Figure
    new: Figure
    factor: float
    noise: float

    @property
    def verdict(self) -> str:
        """`worse`, `better`, or `` if the change is within the noise."""
        if self.factor < 1 / (1 + self.noise):
            return "worse"
        return "better" if self.factor > 1 + self.noise else ""


def changes(old: Run, new: Run) -> Iterator[Change]:
    """The figures that both runs have, in the order of the new one."""
    before = {figure.identity: figure for figure in old.figures}
    for figure in new.figures:
        other = before.get(figure.identity)
        if other is None or not other.median or not figure.median:
            continue
        if figure.unit == "MB" and max(other.median, figure.median) < _LEAST_MB:
            continue
        gain = figure.median / other.median
        yield Change(other, figure, gain if figure.higher_is_better else 1 / gain, _noise([other, figure]))


def _noise(figures: Sequence[Figure]) -> float:
    """Half of each range, on top of the least noise."""
    spreads = [figure.spread for figure in figures]
    known = [spread for spread in spreads if spread is not None]
    return _UNKNOWN_NOISE if len(known) < len(spreads) else _LEAST_NOISE + sum(known) / 2
