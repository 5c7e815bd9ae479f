"""The table on the screen, and the report with charts."""

import io
import re
from pathlib import Path

from rich.console import Console

from semel.cli.bench.compare import changes
from semel.cli.bench.figures import Figure, Run
from semel.cli.bench.report import write_report
from semel.cli.bench.table import tables

RATE = Figure("batches", "32 texts", "cpu", "<m>", "texts/s", [900.0, 1000.0, 1100.0], True, 2000.0, "matrix products")
START = Figure("start", "first text", "cpu", "<m>", "s", [3.21])
RUN = Run({"semel": "1.0", "processor": "a < b"}, [START, RATE], {"<m> on cuda": "no GPU"})


def shown(run: Run, old: Run | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    for table in tables(run.figures, None if old is None else list(changes(old, run))):
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_median_rounds_and_limit() -> None:
    text = shown(RUN)
    assert re.search(r"32 texts .* 1,000 texts/s .* 900 – 1,100 .* 50% of 2,000 \(matrix products\)", text)
    assert re.search(r"first text .* 3\.21 s", text)
    assert "before" not in text


def test_the_share_of_a_limit_of_time_is_turned_round() -> None:
    one = Figure("one text", "p50", "cpu", "m", "ms", [8.0], limit=2.0, limit_name="reading the weights once")
    assert "25% of 2 (reading the weights once)" in shown(Run({}, [one], {}))


def test_what_got_worse_is_marked() -> None:
    slower = Figure("batches", "32 texts", "cpu", "<m>", "texts/s", [500.0, 500.0, 500.0], True)
    added = Figure("batches", "100 texts", "cpu", "<m>", "texts/s", [500.0], True)
    text = shown(Run({}, [slower, added], {}), RUN)
    assert re.search(r"32 texts .* 1,000 .* 0\.50 × as good, worse", text)
    assert re.search(r"100 texts .* new", text)


def test_the_report_has_all_figures_and_charts_and_needs_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "bench.html"
    write_report(RUN, path)
    page = path.read_text()
    assert page.count("<svg") == 2
    for text in ("1,000 texts/s", "900, 1,000, 1,100", "3.21 s", "a &lt; b", "&lt;m&gt; on cuda", "no GPU"):
        assert text in page
    assert "<m>" not in page
    assert not re.search(r"<(script|link|img)", page)
