"""Runs the benchmarks, and writes what they print to docs/reference/benchmarks.md: `make bench`.

Each question keeps its last answer, with its date and its machine, so that one can be asked again alone:
`python -m benchmarks bench_peers bench_warm`.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.charts import draw_peers
from semel.cli.bench.run import about

HERE = Path(__file__).parent

RESULTS = HERE / "results.json"

PAGE = HERE.parent / "docs" / "reference" / "benchmarks.md"

CHART = HERE.parent / "docs" / "images" / "bench-peers.svg"

NEEDS_A_GPU = {"bench_cuda"}

_START = """# Benchmarks

`make bench` writes this page: one file of [benchmarks/](../../benchmarks) for each question, with the peer next to
semel in the same run. Everything runs on one machine, the client too. Compare the ratios, not the rates: machines of
one kind differ by up to two times. `semel bench` measures your own machine.
"""

_LOG = re.compile(r"^(\x1b\[\S+)?\d{4}-\d\d-\d\d |^semel +━")
"""Lines of the log and of progress bars."""


def main() -> None:
    """Run all questions, or those that are named, and write the page."""
    questions = sorted(file.stem for file in HERE.glob("bench_*.py") if file.stem not in NEEDS_A_GPU)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[*questions, []], help="by default all")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    failed = []
    for question in options.questions or questions:
        print(f"== {question}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{question}"], cwd=HERE.parent, stdout=subprocess.PIPE, text=True
        )
        print(done.stdout, flush=True)
        if done.returncode:
            failed.append(question)
            continue
        lines = [line for line in done.stdout.splitlines() if line.strip() and not _LOG.match(line)]
        results[question] = {"about": about(), "lines": lines}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw_peers(results.get("bench_peers", {}).get("lines", []), CHART)
    PAGE.write_text(page(results))
    if failed:
        raise SystemExit(f"failed, and not written: {', '.join(failed)}")


def page(results: dict[str, dict[str, object]]) -> str:
    """The page of all answers."""
    parts = [_START]
    for question, result in sorted(results.items()):
        source = ast.get_docstring(ast.parse((HERE / f"{question}.py").read_text())) or question
        parts.append(f"## {source.splitlines()[0]}\n")
        parts.append(f"[{question}.py](../../benchmarks/{question}.py), {machine(result['about'])}\n")  # type: ignore[arg-type]
        if question == "bench_peers":
            parts.append("![Texts per second of semel and its peers](../images/bench-peers.svg)\n")
        lines = "\n".join(result["lines"])  # type: ignore[arg-type]
        parts.append(f"```text\n{lines}\n```\n")
    return "\n".join(parts)


def machine(about: dict[str, str]) -> str:
    """When and where it was measured, with which versions."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "torch", "transformers") if name in about)
    return f"{about['made']}, {about['cores']} cores, {about['processor']}, {versions}."


if __name__ == "__main__":
    main()
