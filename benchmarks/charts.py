"""The charts of docs/reference/benchmarks.md."""

import re
from collections.abc import Sequence
from pathlib import Path

_RATE = re.compile(r"^(\w+): (\w+) ([\d,]+)/s .*?rounds: ([\d, ]+)\)")


def draw_peers(lines: Sequence[str], path: Path) -> None:
    """Draw the rates that bench_peers printed, with the range of their rounds, as SVG; nothing if there are none."""
    found = [match.groups() for line in lines if (match := _RATE.match(line))]
    if not found:
        return
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys(kind for kind, *_ in found))
    with plt.rc_context({"svg.hashsalt": "semel", "svg.fonttype": "path", "font.family": "sans-serif"}):
        chart, every = plt.subplots(1, len(kinds), figsize=(9, 2.4), layout="constrained", squeeze=False)
        for axes, kind in zip(every[0], kinds, strict=True):
            rows = [(name, rate, rounds) for each, name, rate, rounds in found if each == kind]
            rates = [_number(rate) for _, rate, _ in rows]
            rounds = [[_number(each) for each in re.split(r",\s", values)] for *_, values in rows]
            ranges = [
                [rate - min(values) for rate, values in zip(rates, rounds, strict=True)],
                [max(values) - rate for rate, values in zip(rates, rounds, strict=True)],
            ]
            axes.barh([name.replace("_", "-") for name, *_ in rows], rates, xerr=ranges, color="#3b6ea8", height=0.6)
            axes.invert_yaxis()
            axes.set_xlim(left=0)
            axes.set_title(f"{kind} per second", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
        chart.savefig(path, format="svg", metadata={"Date": None})
        plt.close(chart)


def _number(text: str) -> float:
    return float(text.replace(",", ""))
