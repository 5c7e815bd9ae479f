"""Two runs next to each other."""

from collections.abc import Sequence

import pytest

from semel.cli.bench.compare import changes
from semel.cli.bench.figures import Figure, Run


def run(*figures: Figure) -> Run:
    return Run({}, figures, {})


def rate(*values: float, name: str = "32 texts") -> Figure:
    return Figure("batches", name, "cpu", "m", "texts/s", values, higher_is_better=True)


def latency(*values: float) -> Figure:
    return Figure("one text", "p50", "cpu", "m", "ms", values)


@pytest.mark.parametrize(
    ("old", "new", "factor", "verdict"),
    [
        (rate(100, 100), rate(80, 80), 0.8, "worse"),
        (rate(100, 100), rate(125, 125), 1.25, "better"),
        (rate(100, 100), rate(97, 97), 0.97, ""),
        (latency(10, 10), latency(12, 12), 10 / 12, "worse"),
        (latency(10, 10), latency(8, 8), 1.25, "better"),
        (rate(80, 100, 120), rate(70, 80, 90), 0.8, ""),
        (rate(98, 100, 102), rate(79, 80, 81), 0.8, "worse"),
        (latency(3), latency(3.6), 3 / 3.6, ""),
        (latency(3), latency(4), 0.75, "worse"),
    ],
    ids=[
        "a lower rate",
        "a higher rate",
        "the least noise",
        "a longer time",
        "a shorter time",
        "as far apart as the rounds",
        "farther apart than the rounds",
        "one round",
        "one round, far apart",
    ],
)
def test_a_change_counts_when_it_is_larger_than_the_noise(
    old: Figure, new: Figure, factor: float, verdict: str
) -> None:
    (change,) = changes(run(old), run(new))
    assert (change.factor, change.verdict) == (pytest.approx(factor), verdict)


def test_figures_that_one_run_lacks_are_not_compared() -> None:
    old = run(rate(1, 1), rate(1, 1, name="gone"))
    new = run(rate(1, 1, name="new"), rate(1, 1))
    assert _names(old, new) == ["32 texts"]


def test_less_than_a_megabyte_is_not_compared() -> None:
    def memory(value: float) -> Figure:
        return Figure("memory", "each request", "cpu", "m", "MB", [value])

    assert _names(run(memory(0.1)), run(memory(0.9))) == []
    assert _names(run(memory(0.1)), run(memory(1.1))) == ["each request"]


def test_a_figure_of_zero_has_no_factor() -> None:
    assert _names(run(rate(0, 0)), run(rate(1, 1))) == []
    assert _names(run(rate(1, 1)), run(rate(0, 0))) == []


def _names(old: Run, new: Run) -> Sequence[str]:
    return [change.new.name for change in changes(old, new)]
