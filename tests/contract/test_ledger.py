"""The ledger of syncs, on SQLite and on PostgreSQL."""

import threading
from typing import Any

import pytest
from sqlalchemy import update

from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.sync.ledger import Collection, Ledger, Written
from semel.sync.ledger.records import CHUNK_BYTES
from semel.sync.ledger.schema import syncs


def written(name: str, chunks: int = 1, version: str | None = "1") -> Written:
    return Written(name, version, bytes(32), bytes(8), bytes([chunks]) * CHUNK_BYTES * chunks)


@pytest.fixture
def ledger(db: Database) -> Ledger:
    made = Ledger(db, owner="me")
    made.open("docs", "folder", "parquet:x")
    assert made.take_lease("docs", seconds=60)
    return made


@pytest.fixture
def collection(ledger: Ledger) -> Collection:
    return add(ledger, "docs_1")


def add(ledger: Ledger, name: str, **spec: Any) -> Collection:
    number = ledger.add_collection("docs", name, model="m", fingerprint=bytes(32), dim=8, spec=spec)
    return next(each for each in ledger.collections("docs") if each.id == number)


def test_documents_are_found_by_their_ids(ledger: Ledger, collection: Collection) -> None:
    documents = ledger.within(collection)
    names = [f"d{i}" for i in range(1200)]
    documents.confirm([written(name, chunks=2) for name in names])
    found = documents.known([*names, "unknown"])
    assert set(found) == set(names)
    assert (found["d7"].count, found["d7"].pending, len(found["d7"].keys)) == (2, None, 2)
    assert sorted(each.id for part in documents.all() for each in part) == sorted(names)
    (counted,) = ledger.collections("docs")
    assert (counted.documents, counted.chunks) == (1200, 2400)


def test_an_intention_keeps_what_was_and_the_largest_number_until_it_is_confirmed(
    ledger: Ledger, collection: Collection
) -> None:
    documents = ledger.within(collection)
    documents.confirm([written("a", chunks=2)])
    for count in (5, 3):
        documents.intend({"a": count, "new": 1})
    known = documents.known(["a", "new"])
    assert (known["a"].count, known["a"].pending, known["a"].most_chunks, known["a"].version) == (2, 5, 5, "1")
    assert (known["new"].count, known["new"].most_chunks) == (0, 1)
    documents.confirm([written("a", chunks=3, version="2"), written("new")])
    known = documents.known(["a", "new"])
    assert (known["a"].count, known["a"].pending, known["a"].version) == (3, None, "2")
    assert known["new"].pending is None


def test_collections_do_not_share_documents(ledger: Ledger, collection: Collection) -> None:
    other = add(ledger, "docs_2")
    ledger.within(collection).confirm([written("a")])
    ledger.within(other).confirm([written("a", chunks=3), written("b")])
    ledger.within(other).forget(["a"])
    ledger.within(other).set_versions({"b": None})
    assert set(ledger.within(collection).known(["a", "b"])) == {"a"}
    assert ledger.within(other).known(["a", "b"])["b"].version is None
    ledger.forget_collection(other)
    assert [each.name for each in ledger.collections("docs")] == ["docs_1"]
    assert ledger.within(other).known(["b"]) == {}
    assert set(ledger.within(collection).known(["a"])) == {"a"}


def test_only_the_owner_of_the_lease_writes(db: Database, ledger: Ledger, collection: Collection) -> None:
    other = Ledger(db, owner="other")
    assert not other.take_lease("docs", seconds=60)
    assert other.sync("docs").running
    for stranger in (other, Ledger(db)):
        with pytest.raises(ConflictError, match="silent for too long"):
            stranger.within(collection).confirm([written("a")])
    ledger.within(collection).confirm([written("a")])
    ledger.release("docs")
    assert other.take_lease("docs", seconds=60)
    with pytest.raises(ConflictError):
        ledger.within(collection).confirm([written("b")])
    assert set(other.within(collection).known(["a", "b"])) == {"a"}


def test_a_lease_that_was_not_renewed_ends(db: Database, ledger: Ledger) -> None:
    with db.write() as conn:
        conn.execute(update(syncs).values(lease_until=1.0))
    assert not ledger.sync("docs").running
    assert Ledger(db, owner="other").take_lease("docs", seconds=60)
    assert not ledger.take_lease("docs", seconds=60)
    ledger.release("docs")  # not his any more
    assert Ledger(db).sync("docs").running


def test_one_of_many_gets_the_lease(db: Database, ledger: Ledger) -> None:
    ledger.release("docs")
    got: list[bool] = []
    owners = [Ledger(db, owner=f"o{i}") for i in range(8)]
    threads = [threading.Thread(target=lambda o=o: got.append(o.take_lease("docs", seconds=60))) for o in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(got) == 1


def test_another_collection_serves(ledger: Ledger, collection: Collection) -> None:
    other = add(ledger, "docs_2")
    filling = add(ledger, "docs_3")
    for each in (collection, other):
        ledger.mark_filled(each, {"chunk": 1})
    ledger.mark_serving(collection)
    assert ledger.sync("docs").serving == collection.id
    ledger.mark_serving(other)
    states = {each.name: each.retired_at is not None for each in ledger.collections("docs")}
    assert states == {"docs_1": True, "docs_2": False, "docs_3": False}
    assert ledger.collections("docs")[1].spec == {"chunk": 1}
    assert filling.filled_at is None


def test_runs_are_kept_newest_first_and_a_lost_one_has_failed(ledger: Ledger, collection: Collection) -> None:
    first = ledger.begin_run("docs", collection.id, {"n": 1})
    second = ledger.begin_run("docs", collection.id, {"n": 2})
    ledger.record_run(second, "done", {"n": 3})
    assert [(run.id, run.outcome, run.report) for run in ledger.runs("docs")] == [
        (second, "done", {"n": 3}),
        (first, "failed", {"n": 1}),
    ]
    for number in range(120):
        ledger.record_run(ledger.begin_run("docs", None, {"n": number}), "done", {})
    assert len(ledger.runs("docs", limit=1000)) == 101


def test_an_unknown_sync_is_not_found(db: Database) -> None:
    with pytest.raises(NotFoundError, match="nobody"):
        Ledger(db).sync("nobody")
    assert Ledger(db).syncs() == []


def test_a_sync_that_is_forgotten_is_gone(ledger: Ledger, collection: Collection) -> None:
    ledger.begin_run("docs", collection.id, {})
    ledger.forget_collection(collection)
    ledger.forget_sync("docs")
    assert (ledger.syncs(), ledger.runs("docs")) == ([], [])


def test_two_syncs_do_not_share_an_index(db: Database, ledger: Ledger) -> None:
    with pytest.raises(ConflictError, match="sync 'docs' writes to parquet:x; two of them"):
        Ledger(db).open("other", "folder", "parquet:x")


def test_a_sink_may_change_until_it_has_a_collection(ledger: Ledger) -> None:
    """A mistyped address must not stay for ever."""
    ledger.open("docs", "folder", "parquet:right")
    assert ledger.sync("docs").sink == "parquet:right"
    add(ledger, "docs_1")
    ledger.open("docs", "folder", "parquet:another")
    assert ledger.sync("docs").sink == "parquet:right"


def test_a_source_may_move_and_ids_may_be_anything(ledger: Ledger, collection: Collection) -> None:
    ledger.open("docs", "another folder", "parquet:x")
    assert ledger.sync("docs").source == "another folder"
    names = ["é/漢字.md", "a'b", "x" * 5000, " "]
    ledger.within(collection).confirm([written(name) for name in names])
    assert set(ledger.within(collection).known(names)) == set(names)
