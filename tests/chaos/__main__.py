"""Runs a campaign and prints a table: `make chaos ROUNDS=300 SEED=1`."""

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.campaign import Campaign, Report
from tests.support.databases import postgresql_database


def main() -> None:
    """Run rounds on SQLite or PostgreSQL; the exit code is 1 if one showed a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=2)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--apis", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    reports: list[Report] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # or its processes would be left behind
    with ExitStack() as stack:
        stack.callback(lambda: show(reports))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgresql_database()) if options.database == "postgresql" else ""
        campaign = Campaign(folder, url, apis=options.apis, workers=options.workers)
        stack.callback(campaign.close)
        campaign.start()
        for seed in range(options.seed, options.seed + options.rounds):
            report = campaign.round(seed, faults=options.faults)
            reports.append(report)
            outcome = "; ".join(report.problems) or "passed"
            print(f"seed {seed}, {', '.join(report.faults)}: {outcome}", flush=True)
            if report.problems:
                print(campaign.semel.logs(), file=sys.stderr)
    sys.exit(any(report.problems for report in reports))


def show(reports: list[Report]) -> None:
    """Print a row for each round, and the totals."""
    if not reports:
        return
    table = Table("seed", "faults", "rows", "requests (ok)", "deaths", "twice (allowed)", "served", "ended", "problems")
    for r in reports:
        asked = f"{r.answers.total()} ({r.answers['ok']})"
        table.add_row(
            str(r.seed),
            ", ".join(r.faults),
            f"{r.rows:,}",
            asked,
            str(r.deaths),
            f"{r.twice} ({r.allowed_twice})",
            f"{r.served_s:.1f} s",
            f"{r.ended_s:.1f} s",
            "; ".join(r.problems),
        )
    Console(width=200).print(table)
    served, ended = (sorted(values) for values in ([r.served_s for r in reports], [r.ended_s for r in reports]))
    p95 = int(0.95 * (len(reports) - 1))
    print(
        f"{len(reports)} rounds, {sum(len(r.faults) for r in reports)} faults, {sum(r.rows for r in reports):,} rows "
        f"compared, {sum(bool(r.problems) for r in reports)} rounds with problems; new text served p95 "
        f"{served[p95]:.1f} s, all jobs ended p95 {ended[p95]:.1f} s"
    )


if __name__ == "__main__":
    main()
