"""`semel sync` as a user types it, with a real model, locally and through a server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pytest

from tests.support.handbook import Handbook
from tests.support.processes import Processes, processes
from tests.unit.sync.sources.test_texts import pdf


@pytest.fixture(scope="module")
def semel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """One stack for all tests; each has a semel.toml and a folder of its own."""
    with processes(tmp_path_factory.mktemp("sync"), toml='default_model = "minilm"\n') as running:
        yield running


@pytest.fixture
def handbook(semel: Processes, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Handbook]:
    where = request.param
    made = Handbook(tmp_path, semel if where == "server" else None)
    yield made
    if where == "server":  # whose ledger all tests share
        for state in json.loads(made.run("sync", "status", "--json").stdout):
            made.run("sync", "drop", state["name"], "--forget")


BOTH = pytest.mark.parametrize("handbook", ["local", "server"], indirect=True)


@BOTH
def test_an_index_follows_its_documents_night_after_night(handbook: Handbook) -> None:
    planned = handbook.run("sync", "plan", "handbook", *handbook.where)
    assert "+3  ~0  −0 documents" in planned.stderr
    first = handbook.sync()
    assert first["failed"] == 0
    assert first["written"] == first["plan"]["chunks"] > 5  # type: ignore[index]
    (best, *_) = handbook.search("What do cats do?", "-k", "2")
    assert (best["document"], best["chunk"], best["payload"]["title"]) == ("notes.txt", 0, "notes")  # type: ignore[index]
    assert handbook.sync()["written"] == 0
    handbook.write("install.md", "# Install\n\nTurn the wheel.\n\n## Linux\n\nUse the package manager.")
    (handbook.docs / "moved.txt").write_text((handbook.docs / "notes.txt").read_text())
    (handbook.docs / "notes.txt").unlink()
    (handbook.docs / "manual.pdf").write_bytes(pdf("The submarine has a yellow door."))
    (handbook.docs / "broken.pdf").write_bytes(b"none")
    second = handbook.sync(code=3)
    plan = second["plan"]
    assert (plan["added"], plan["changed"], plan["deleted"], plan["moved"]) == (2, 1, 1, 1)  # type: ignore[index]
    assert second["failures"] == {"broken.pdf": "its text cannot be read: No /Root object! - Is this really a PDF?"}
    assert second["computed"] == 2  # the new chunk of install.md, and the PDF
    assert handbook.search("What colour is the submarine's door?")[0]["document"] == "manual.pdf"
    assert handbook.search("linux", "--where", "heading=Install", "-k", "3")
    assert "notes.txt" not in {each["document"] for each in handbook.search("cats", "-k", "50")}
    checked = json.loads(handbook.run("sync", "check", "handbook", "--all", "--json", *handbook.where).stdout)
    assert (checked["is_right"], checked["compared"]) == (True, checked["chunks"])


@BOTH
def test_a_change_of_the_model_without_an_outage(handbook: Handbook) -> None:
    handbook.sync()
    if handbook.where[0] == "--url":
        refused = handbook.run("sync", "run", "handbook", *handbook.where, "--model", "short", code=2)
        assert "serves no model 'short'" in refused.stderr
        return
    before = handbook.search("press")
    second = handbook.sync("handbook", "--model", "short")
    assert not second["serves"]
    assert "'semel sync cutover handbook' switches" in second["plan"]["notes"][0]  # type: ignore[index]
    assert handbook.search("press") == before
    assert "(short, 3 documents) answers now" in handbook.run("sync", "cutover", "handbook").stdout
    assert handbook.search("press")
    assert "(minilm, 3 documents) answers now" in handbook.run("sync", "rollback", "handbook").stdout
    assert handbook.search("press") == before
    assert handbook.sync()["computed"] == 0
    state = json.loads(handbook.run("sync", "status", "handbook", "--json").stdout)
    assert [each["state"] for each in state["collections"]] == ["serving", "retired"]
    assert "retired" in handbook.run("sync", "status").stdout
    assert len(handbook.run("sync", "drop", "handbook", "--yes").stdout.splitlines()) == 2


@pytest.mark.parametrize("handbook", ["server"], indirect=True)
def test_a_server_embeds_by_jobs_that_name_the_sync(handbook: Handbook) -> None:
    handbook.sync("table", code=2)  # there are no rows yet
    rows = [{"id": 1, "text": "a saw", "brand": "x"}, {"id": 2, "text": "", "brand": "y"}]
    (handbook.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = handbook.sync("table", code=3)
    assert done["failures"] == {"2": "the text is empty"}
    assert handbook.server.client.jobs(limit=1)[0].metadata == {"sync": "table"}
    parts = sorted((handbook.folder / "index" / "table").glob("part-*.parquet"))
    stored = [(row["document"], row["text"], row["brand"]) for row in ds.dataset(parts).to_table().to_pylist()]
    assert stored == [("1", "a saw", "x")]
