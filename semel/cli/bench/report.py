"""The report: one HTML file with all charts and figures in it, which needs nothing else."""

import io
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from semel.atomic_write import atomic_write
from semel.cli.bench.figures import Figure, Run
from semel.cli.bench.table import number, of_limit

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2530 }
h1, h2 { font-weight: 600 } h2 { margin-top: 2.5rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #dde3ea }
svg { max-width: 100%; height: auto }
"""

_BAR, _LIMIT = "#3b6ea8", "#b3542d"

_BAR_INCHES, _WIDTH_INCHES = 0.34, 8.5


def write_report(run: Run, path: Path) -> None:
    """Write the report of a run. Raises OSError."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>semel bench</title>",
        f"<style>{_STYLE}</style></head><body><h1>semel bench</h1>",
        _rows([[name, value] for name, value in run.about.items()]),
    ]
    for group, members in groupby(run.figures, key=lambda figure: figure.group):
        figures = list(members)
        parts.append(f"<h2>{escape(group.capitalize())}</h2>")
        parts += [_chart(list(alike)) for _, alike in groupby(figures, key=lambda figure: figure.unit)]
        parts.append(_table(figures))
    if run.left_out:
        parts.append("<h2>Left out</h2>")
        parts.append(_rows([[name, why] for name, why in run.left_out.items()]))
    with atomic_write(path) as file:
        file.write("\n".join([*parts, "</body></html>"]).encode())


def _chart(figures: Sequence[Figure]) -> str:
    """Bars of figures with one unit, with the range of the rounds and the limits, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    height = 0.9 + _BAR_INCHES * len(figures)
    with plt.rc_context({"svg.hashsalt": "semel", "font.family": "sans-serif", "svg.fonttype": "path"}):
        chart, axes = plt.subplots(figsize=(_WIDTH_INCHES, height), layout="constrained")
        _draw(axes, figures)
        content = io.StringIO()
        chart.savefig(content, format="svg", metadata={"Date": None})
        plt.close(chart)
    drawn = content.getvalue()
    return drawn[drawn.index("<svg") :]


def _draw(axes: Any, figures: Sequence[Figure]) -> None:
    places = range(len(figures))
    medians = [figure.median for figure in figures]
    ranges = [
        [median - min(figure.values) for median, figure in zip(medians, figures, strict=True)],
        [max(figure.values) - median for median, figure in zip(medians, figures, strict=True)],
    ]
    axes.barh(places, medians, xerr=ranges, color=_BAR, height=0.62, error_kw={"lw": 1, "capsize": 2})
    for place, figure in zip(places, figures, strict=True):
        if figure.limit:
            axes.plot([figure.limit] * 2, [place - 0.4, place + 0.4], color=_LIMIT, lw=2)
    axes.set_yticks(places, [f"{figure.name}  ·  {figure.device} {figure.model}" for figure in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(figures[0].unit + ("; the line is the limit" if any(figure.limit for figure in figures) else ""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _table(figures: Sequence[Figure]) -> str:
    head = ["", "device", "model", "median", "rounds", "of the limit"]
    rows = [
        [
            figure.name,
            figure.device,
            figure.model,
            f"{number(figure.median)} {figure.unit}",
            ", ".join(number(value) for value in figure.values) if len(figure.values) > 1 else "",
            of_limit(figure),
        ]
        for figure in figures
    ]
    return _rows(rows, head)


def _rows(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>"] if head else []
    lines += [f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
