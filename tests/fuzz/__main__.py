"""Sends damaged bodies to a running semel: `make fuzz MINUTES=10 SEED=1`."""

import argparse
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path

from tests.fuzz.run import damaged_cases, fuzz
from tests.support.processes import KINDS_TOML, processes


def main() -> None:
    """Print the answers by status; the exit code is 1 if something happened that must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        processes(
            Path(folder), toml=KINDS_TOML, model="fail_on=poison&max_tokens=20", SEMEL_LOG_LEVEL="warning"
        ) as semel,
    ):
        print(f"sending damaged bodies for {options.minutes:g} minutes, seed {options.seed} …", flush=True)
        deadline = time.monotonic() + 60 * options.minutes
        result = fuzz(semel, takewhile(lambda _: time.monotonic() < deadline, damaged_cases(options.seed)))
    for status, count in sorted(result.answers.items()):
        print(f"{status}  {count:,}")
    print(f"{result.answers.total():,} requests, the API used at most {result.bytes / 1e6:,.0f} MB")
    for problem in result.problems:
        print(problem)
    sys.exit(bool(result.problems))


if __name__ == "__main__":
    main()
