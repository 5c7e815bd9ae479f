"""The figures on the screen: a table for each group, with the change since an older run."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.table import Table

from semel.cli.bench.compare import Change
from semel.cli.bench.figures import Figure

_STYLES = {"worse": "bold red", "better": "green", "": ""}


def tables(figures: Sequence[Figure], compared: Sequence[Change] | None) -> Iterator[Table]:
    """A table for each group, in the order of the figures.

    Args:
        compared: the changes since an older run; None if there is none to compare with.
    """
    change_of = {change.new.identity: change for change in compared or ()}
    for group, members in groupby(figures, key=lambda figure: figure.group):
        table = Table(title=group, title_justify="left", title_style="bold")
        for column in ("", "device", "model"):
            table.add_column(column)
        for column in ("median", "rounds", "of the limit", *(["before", "change"] if compared is not None else [])):
            table.add_column(column, justify="right")
        for figure in members:
            table.add_row(*_row(figure), *([] if compared is None else _change(change_of.get(figure.identity))))
        yield table


def _row(figure: Figure) -> tuple[str, ...]:
    rounds = f"{number(min(figure.values))} – {number(max(figure.values))}" if len(figure.values) > 1 else ""
    return figure.name, figure.device, figure.model, f"{number(figure.median)} {figure.unit}", rounds, of_limit(figure)


def of_limit(figure: Figure) -> str:
    """The share of the limit that is reached, and what the limit is."""
    if not figure.limit or not figure.median:
        return ""
    share = figure.median / figure.limit if figure.higher_is_better else figure.limit / figure.median
    return f"{share:.0%} of {number(figure.limit)} ({figure.limit_name})"


def _change(change: Change | None) -> tuple[str, str]:
    if change is None:
        return "", "new"
    style = _STYLES[change.verdict]
    text = f"{change.factor:.2f} × as good" + (f", {change.verdict}" if change.verdict else "")
    return number(change.old.median), f"[{style}]{text}[/]" if style else text


def number(value: float) -> str:
    """A number with three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
