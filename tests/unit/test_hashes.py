"""constraints.hashes.txt, and the check of what was installed against it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "check-hashes"


def pins(name: str) -> set[tuple[str, str]]:
    found = re.findall(r"^([\w.-]+)==([^\s\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {(re.sub(r"[-_.]+", "-", package).lower(), version) for package, version in found}


def test_every_pinned_version_has_its_hashes() -> None:
    """Otherwise: make constraints.hashes.txt again, by the command in its first lines."""
    unhashed = pins("constraints.txt") - pins("constraints.hashes.txt")
    assert {name for name, _ in unhashed} == {"torch"}
    assert pins("constraints.hashes.txt") <= pins("constraints.txt")


def check(folder: Path, *installed: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    report = folder / "report.json"
    report.write_text(json.dumps({"install": list(installed)}))
    return subprocess.run([sys.executable, SCRIPT, report], capture_output=True, text=True, check=False)


def item(name: str, version: str, digest: str | None) -> dict[str, Any]:
    archive = {"hashes": {"sha256": digest}} if digest else {}
    return {"metadata": {"name": name, "version": version}, "download_info": {"archive_info": archive}}


def pinned() -> tuple[str, str, str]:
    text = (ROOT / "constraints.hashes.txt").read_text()
    found = re.search(r"^(numpy)==(\S+) \\\n\s+--hash=sha256:(\w+)", text, re.MULTILINE)
    assert found
    return found[1], found[2], found[3]


def test_a_file_that_was_tested_passes(tmp_path: Path) -> None:
    name, version, digest = pinned()
    done = check(tmp_path, item(name, version, digest), item("torch", "2.13.0+cpu", "0" * 64))
    assert (done.returncode, "1 packages have the files that were tested" in done.stdout) == (0, True)


def test_another_file_fails(tmp_path: Path) -> None:
    name, version, _ = pinned()
    done = check(tmp_path, item(name.upper(), version, "0" * 64))
    assert done.returncode == 1
    assert "which is none of those in constraints.hashes.txt" in done.stderr


@pytest.mark.parametrize("unknown", [item("pywin32", "1", "0" * 64), item("numpy", "0.1", "0" * 64)])
def test_what_is_not_pinned_is_named(tmp_path: Path, unknown: dict[str, Any]) -> None:
    done = check(tmp_path, unknown)
    assert (done.returncode, f"not compared: {unknown['metadata']['name']}" in done.stdout) == (0, True)
