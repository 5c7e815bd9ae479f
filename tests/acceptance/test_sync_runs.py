"""Runs of `semel sync`: killed, refused, several, watched, and those that cannot be."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.handbook import Handbook
from tests.support.processes import wait_until


@pytest.fixture
def handbook(tmp_path: Path) -> Handbook:
    return Handbook(tmp_path)


def test_a_run_that_is_killed_is_finished_by_the_next_one(handbook: Handbook) -> None:
    handbook.write(
        "long.md", "\n\n".join(f"Paragraph {i} has some words of its own, and a number." for i in range(3000))
    )
    handbook.sync("handbook", "--dry-run")  # the model's digest is known from now on
    command = [sys.executable, "-m", "semel", "sync", "run", "handbook", "--local"]
    running = subprocess.Popen(command, env=handbook.environment, cwd=handbook.folder, stderr=subprocess.PIPE)
    database = handbook.folder / "home" / "semel.db"
    wait_until(lambda: b"chunks to write" in (running.stderr.readline() if running.stderr else b""), timeout_s=60)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    assert database.exists()
    busy = handbook.run("sync", "run", "handbook", "--local", code=5)
    assert "another run of sync 'handbook' is under way (one that was killed blocks the name for 60 s)" in busy.stderr


def test_a_source_that_shrank_is_refused_and_allowed(handbook: Handbook) -> None:
    handbook.sync()
    (handbook.docs / "notes.txt").unlink()
    refused = handbook.run("sync", "run", "handbook", *handbook.where, code=4)
    assert "lost 1 of 3 documents (33 %)" in refused.stderr
    assert handbook.search("cats")[0]["document"] == "notes.txt"
    handbook.sync("handbook", "--max-delete", "50%")
    assert handbook.search("cats")[0]["document"] != "notes.txt"


def test_all_syncs_run_and_one_that_fails_does_not_stop_the_others(handbook: Handbook) -> None:
    done = handbook.run("sync", "run", "--all", *handbook.where, code=1)
    assert "error: table: there is no file or folder" in done.stderr
    assert handbook.search("cats")
    (handbook.folder / "rows.jsonl").write_text('{"id": 1, "text": "a saw", "brand": "x"}\n')
    handbook.run("sync", "run", "--all", *handbook.where)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "give the name of a sync, a source and a sink, or --all"),
        (["run", "nobody"], r"there is no sync 'nobody': semel.toml has no [syncs.nobody] (it has: handbook, table)"),
        (["run", "handbook", "--url", "http://x", "--local"], "--local and --url cannot be used together"),
        (["run", "handbook", "--max-delete", "many"], "'many' is no percentage"),
        (["check", "handbook"], "handbook"),
        (["cutover", "handbook"], "handbook"),
        (["status", "nobody"], "nobody"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(handbook: Handbook, arguments: list[str], message: str) -> None:
    done = handbook.run("sync", *arguments, code=2)
    assert message in done.stderr


def test_a_watched_folder_is_followed(handbook: Handbook) -> None:
    command = [sys.executable, "-m", "semel", "sync", "run", "handbook", "--local", "--watch"]
    log = handbook.folder / "watch.log"
    with log.open("wb") as stderr:
        watching = subprocess.Popen(command, env=handbook.environment, cwd=handbook.folder, stderr=stderr)
    try:
        wait_until(lambda: "Ctrl-C ends it" in log.read_text(), timeout_s=60, detail=log.read_text)
        handbook.write("new.md", "A submarine.")
        wait_until(lambda: "+1  ~0  −0 documents" in log.read_text(), timeout_s=60, detail=log.read_text)
        wait_until(lambda: log.read_text().count("chunks written") == 2, timeout_s=60, detail=log.read_text)
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 130
    assert handbook.search("submarine")[0]["document"] == "new.md"
