"""One suite for every sink: Parquet, LanceDB, Qdrant's local mode, and PostgreSQL with pgvector."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from semel.errors import BadInputError, ConflictError, NotFoundError
from semel.sync.document import Payload
from semel.sync.sinks import Layout, Rows, Sink, agree, open_sink
from semel.values.vectors import Vectors
from tests.support.syncs import rows_in, same_payload, sink_address

LAYOUT = Layout(4, ("brand", "year"))


@pytest.fixture(params=["parquet", "lancedb", "qdrant", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sink(kind: str, tmp_path: Path, pgvector: Callable[[], str]) -> Iterator[Sink]:
    opened = open_sink(sink_address(kind, tmp_path, pgvector))
    yield opened
    opened.close()


def vectors(n: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)


def rows(n: int, *, seed: int = 0, ids: list[UUID] | None = None, payload: Payload | None = None) -> Rows:
    given = {"brand": f"b{seed}", "year": 2000 + seed} if payload is None else payload
    return Rows(
        ids or [uuid4() for _ in range(n)],
        [f"doc {i}" for i in range(n)],
        list(range(n)),
        [f"text {seed}-{i}" for i in range(n)],
        [given] * n,
        vectors(n, seed),
    )


def stored(sink: Sink, name: str, wanted: list[UUID]) -> dict[UUID, np.ndarray]:
    found: dict[UUID, np.ndarray] = {}
    for ids, numbers in sink.open(name, LAYOUT).read(wanted):
        assert numbers is not None
        found.update(zip(ids, numbers, strict=True))
    return found


def test_what_was_written_is_read(sink: Sink, kind: str) -> None:
    collection, written = sink.open("a", LAYOUT, make=True), rows(5)
    collection.write(written)
    assert written.vectors is not None
    there = stored(sink, "a", list(written.ids))
    assert set(there) == set(written.ids)
    assert agree(collection.keeps, np.stack([there[each] for each in written.ids]), written.vectors).all()
    collection.finish()
    found = rows_in(sink, "a")
    for i, each in enumerate(written.ids):
        row = found[each]
        assert (row.document, row.number, row.text) == (f"doc {i}", i, f"text 0-{i}")
        assert same_payload(row.payload, written.payloads[i], kind)


def test_a_second_write_of_an_id_replaces_the_row(sink: Sink, kind: str) -> None:
    collection, first = sink.open("a", LAYOUT, make=True), rows(3)
    collection.write(first)
    second = rows(2, seed=7, ids=list(first.ids[:2]))
    collection.write(second)
    collection.write(second)
    collection.finish()
    found = rows_in(sink, "a")
    assert [found[each].text for each in first.ids] == ["text 7-0", "text 7-1", "text 0-2"]
    there = stored(sink, "a", list(first.ids))
    assert second.vectors is not None
    assert agree(collection.keeps, np.stack([there[each] for each in second.ids]), second.vectors).all()


def test_a_write_without_vectors_keeps_them(sink: Sink, kind: str) -> None:
    collection, first = sink.open("a", LAYOUT, make=True), rows(3)
    collection.write(first)
    before = stored(sink, "a", list(first.ids))
    change = rows(2, seed=9, ids=[first.ids[0], uuid4()])
    collection.write(Rows(change.ids, change.documents, change.numbers, change.texts, change.payloads, None))
    collection.finish()
    found, after = rows_in(sink, "a"), stored(sink, "a", list(first.ids))
    assert set(found) == set(first.ids)  # an id that it does not have is ignored
    assert same_payload(found[first.ids[0]].payload, {"brand": "b9", "year": 2009}, kind)
    assert same_payload(found[first.ids[1]].payload, {"brand": "b0", "year": 2000}, kind)
    assert all((after[each] == before[each]).all() for each in first.ids)


def test_deleted_rows_are_gone_and_unknown_ids_are_ignored(sink: Sink) -> None:
    collection, written = sink.open("a", LAYOUT, make=True), rows(4)
    collection.write(written)
    collection.delete([written.ids[1], uuid4()])
    collection.delete([])
    assert set(stored(sink, "a", list(written.ids))) == set(written.ids) - {written.ids[1]}
    collection.finish()
    assert set(rows_in(sink, "a")) == set(written.ids) - {written.ids[1]}


def test_all_ids_are_read_in_parts(sink: Sink) -> None:
    collection, written = sink.open("a", LAYOUT, make=True), rows(600)
    collection.write(written)
    found = [each for ids, numbers in collection.read() for each in ids]
    assert sorted(found) == sorted(written.ids)
    collection.finish()
    assert sorted(each for ids, _ in collection.read() for each in ids) == sorted(written.ids)


def test_a_search_finds_the_nearest_first(sink: Sink, kind: str) -> None:
    collection, written = sink.open("a", LAYOUT, make=True), rows(50)
    collection.write(written)
    collection.finish()
    assert written.vectors is not None
    question = written.vectors[17] * 2  # its length does not matter
    found = collection.search(question, k=3, where={})
    expected = written.vectors @ question / np.linalg.norm(written.vectors, axis=1) / np.linalg.norm(question)
    best = np.argsort(-expected)[:3]
    assert [match.id for match in found] == [written.ids[i] for i in best]
    assert [match.score for match in found] == pytest.approx(expected[best], abs=2e-3)
    assert (found[0].document, found[0].number, found[0].text) == ("doc 17", 17, "text 0-17")
    assert same_payload(found[0].payload, {"brand": "b0", "year": 2000}, kind)


def test_a_search_takes_only_rows_with_these_values(sink: Sink) -> None:
    collection = sink.open("a", LAYOUT, make=True)
    collection.write(rows(20, seed=1))
    wanted = rows(3, seed=2, payload={"brand": "it's", "year": 1999})
    collection.write(wanted)
    collection.finish()
    question = vectors(1)[0]
    assert {match.id for match in collection.search(question, k=10, where={"brand": "it's"})} == set(wanted.ids)
    assert {match.id for match in collection.search(question, k=10, where={"year": "1999"})} == set(wanted.ids)
    assert collection.search(question, k=10, where={"brand": "it's", "year": "2001"}) == []
    with pytest.raises(BadInputError, match=r"keeps no field 'colour' \(it keeps: brand, year\)"):
        collection.search(question, k=1, where={"colour": "red"})


def test_a_value_may_be_missing(sink: Sink, kind: str) -> None:
    collection, written = sink.open("a", LAYOUT, make=True), rows(1, payload={"brand": None, "year": None})
    collection.write(written)
    collection.finish()
    (found,) = collection.search(vectors(1)[0], k=1, where={})
    assert found.payload == {"brand": None, "year": None}


def test_the_payload_may_get_another_field(sink: Sink) -> None:
    old = Layout(4, ("brand",))
    first = rows(2, payload={"brand": "x"})
    sink.open("a", old, make=True).write(first)
    sink.open("a", old, make=True).finish()
    collection = sink.open("a", LAYOUT, make=True)
    collection.write(rows(1, seed=5))
    collection.finish()
    found = collection.search(vectors(1)[0], k=5, where={})
    assert sorted(match.payload["brand"] for match in found) == ["b5", "x", "x"]
    assert len(collection.search(vectors(1)[0], k=5, where={"year": "2005"})) == 1


def test_another_size_of_vectors_is_refused(sink: Sink) -> None:
    collection = sink.open("a", LAYOUT, make=True)
    collection.write(rows(2))
    collection.finish()
    with pytest.raises(BadInputError):
        sink.open("a", Layout(8, ()), make=True)


def test_the_name_moves_in_one_step(sink: Sink) -> None:
    for each in ("a", "b"):
        collection = sink.open(each, LAYOUT, make=True)
        collection.write(rows(1))
        collection.finish()
    assert sink.serving() is None
    for each in ("a", "b", "b", "a"):
        sink.serve(each)
        assert sink.serving() == each


def test_a_dropped_collection_is_gone_with_its_name(sink: Sink) -> None:
    for each in ("a", "b"):
        collection = sink.open(each, LAYOUT, make=True)
        collection.write(rows(2))
        collection.finish()
    sink.serve("a")
    sink.drop("b")
    assert sink.serving() == "a"
    sink.drop("a")
    sink.drop("a")
    assert sink.serving() is None
    assert [each for ids, _ in sink.open("a", LAYOUT, make=True).read() for each in ids] == []


def test_a_collection_that_is_not_there_is_not_made_by_looking(sink: Sink) -> None:
    for _ in range(2):
        with pytest.raises(NotFoundError):
            sink.open("a", LAYOUT)


def test_changes_of_a_crashed_run_with_another_payload_are_read(sink: Sink) -> None:
    sink.open("a", Layout(4, ("brand",)), make=True).write(rows(3, payload={"brand": "x"}))
    collection = sink.open("a", Layout(4, ("year", "brand")))
    collection.write(rows(1, seed=5))
    found = collection.search(vectors(1)[0], k=5, where={})
    assert sorted(match.payload["brand"] for match in found) == ["b5", "x", "x", "x"]
    collection.finish()
    assert len(rows_in(sink, "a")) == 4


def test_the_name_of_something_else_is_not_taken(kind: str, tmp_path: Path, pgvector: Callable[[], str]) -> None:
    opened = open_sink(sink_address(kind, tmp_path, pgvector, name="theirs"))
    opened.open("theirs", LAYOUT, make=True).write(rows(1))
    opened.open("a", LAYOUT, make=True).write(rows(1))
    with pytest.raises(ConflictError):
        opened.serve("a")
    opened.close()
