"""Syncs keep their promises on every sink: whatever is edited, and wherever a run dies, the next run mends it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from semel.errors import BadInputError, ConflictError, UnavailableError
from semel.sync.checking import Checker
from semel.sync.embedding import LocalEmbedding
from semel.sync.ledger import Collection
from semel.sync.opened import OpenedSync, SyncBusyError, TooManyDeletedError
from semel.sync.running import RunOptions
from semel.sync.sinks import agree
from semel.sync.switching import cutover, drop, forget, rollback
from tests.support.syncs import SyncWorld, rows_in, same_payload, sink_address

SINKS = ["parquet", "lancedb", "qdrant", "postgresql"]


class Crash(BaseException):
    """A process that dies: no handler of an Exception sees it."""


class Dying:
    """Counts the calls of what a run uses, and dies at one of them: before its effect, or after it."""

    METHODS = (
        "write",
        "delete",
        "finish",
        "intend",
        "confirm",
        "forget",
        "set_versions",
        "mark_filled",
        "mark_serving",
    )

    def __init__(self, at: int, *, after: bool) -> None:
        self.at, self.after, self.calls = at, after, 0

    def wrap(self, thing: Any) -> Any:
        dying = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                value = getattr(thing, name)
                if name in ("within", "open"):
                    return lambda *args, **named: dying.wrap(value(*args, **named))
                if name not in dying.METHODS:
                    return value

                def call(*args: Any, **named: Any) -> Any:
                    dying.calls += 1
                    if dying.calls == dying.at and not dying.after:
                        raise Crash
                    result = value(*args, **named)
                    if dying.calls == dying.at:
                        raise Crash
                    return result

                return call

        return Wrapped()

    def around(self, opened: OpenedSync) -> OpenedSync:
        return replace(opened, ledger=self.wrap(opened.ledger), sink=self.wrap(opened.sink))


class Counting:
    """An embedding that remembers what it embedded, in small batches."""

    def __init__(self, inner: LocalEmbedding) -> None:
        self._inner = inner
        self.texts: list[str] = []
        self.batch_chunks = 4

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def embed(self, texts: Sequence[str]) -> Any:
        self.texts += texts
        return self._inner.embed(texts)


@pytest.fixture(params=SINKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_world(tmp_path: Path, pgvector: Callable[[], str], kind: str) -> Iterator[Callable[..., SyncWorld]]:
    worlds: list[SyncWorld] = []

    def make(**options: Any) -> SyncWorld:
        folder = tmp_path / uuid4().hex[:8]
        folder.mkdir()
        worlds.append(SyncWorld(folder, sink_address(kind, folder, pgvector), payload=("brand",), **options))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., SyncWorld]) -> SyncWorld:
    return make_world(models={"new": "fake:?dim=8&weights=b"})


def docs(**texts: str) -> list[dict[str, Any]]:
    return [{"id": name, "text": text, "brand": "b"} for name, text in texts.items()]


def serving(world: SyncWorld) -> Collection:
    with world.opened() as opened:
        return opened.serving()


def check_index(world: SyncWorld, documents: list[dict[str, Any]], kind: str) -> None:
    """The index has exactly the chunks of these documents, with their payloads, and the vectors of the cache."""
    with world.opened() as opened:
        collection = opened.serving()
        chunker = world.chunker(LocalEmbedding(world.local, "fake"))
        expected = {
            (each["id"], number): (piece.text, each["brand"])
            for each in documents
            for number, piece in enumerate(chunker.pieces(each["text"]))
        }
        there = rows_in(opened.sink, collection.name)
        found = {(row.document, row.number): (row.text, row.payload) for row in there.values()}
        assert {place: text for place, (text, _) in found.items()} == {
            place: text for place, (text, _) in expected.items()
        }
        assert len(there) == len(expected)
        for place, (_, brand) in expected.items():
            assert same_payload(found[place][1], {"brand": brand}, kind), place
        rows = opened.open(collection)
        space = LocalEmbedding(world.local, collection.model)
        for ids, vectors in rows.read(list(there)):
            assert vectors is not None
            cached = space.embed([there[each].text for each in ids])
            assert cached.computed == 0  # every vector is the cache's
            assert agree(rows.keeps, vectors, cached.vectors).all()
        checked = Checker(opened, collection, world.store, sample=None).check()
        assert checked.is_right, checked
        assert checked.compared == len(expected)


TEXTS = st.sampled_from(
    ["one text", "another text that is longer than a chunk", "a third. with sentences. and more of them, too", "x"]
)
DOCUMENTS = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(TEXTS, st.sampled_from(["p", "q"])), max_size=6)
STEPS = st.lists(
    st.tuples(DOCUMENTS, st.integers(1, 40), st.booleans(), st.sampled_from(["fine", "crash"])), min_size=1, max_size=5
)


@settings(  # a smaller example would take minutes to find
    max_examples=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
@given(steps=STEPS, last=DOCUMENTS)
def test_after_any_edits_and_crashes_the_next_run_is_right(
    make_world: Callable[..., SyncWorld], kind: str, steps: list[Any], last: dict[str, tuple[str, str]]
) -> None:
    world = make_world()
    counting = Counting(LocalEmbedding(world.local, "fake"))

    def listed(given: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
        return [{"id": name, "text": text, "brand": brand} for name, (text, brand) in given.items()]

    computed = 0
    for documents, at, after, outcome in steps:
        dying = Dying(at if outcome == "crash" else 0, after=after)
        try:
            computed += world.run(listed(documents), around=dying.around, embedding=counting).computed
        except Crash:
            continue
        check_index(world, listed(documents), kind)
    world.run(listed(last), embedding=counting)
    check_index(world, listed(last), kind)
    before = len(counting.texts)
    report = world.run(listed(last), embedding=counting)
    assert (report.written, report.updated, report.removed, len(counting.texts)) == (0, 0, 0, before)


def test_only_what_changed_is_written(world: SyncWorld, kind: str) -> None:
    first = docs(a="one text", b="another text that is longer than a chunk", c="gone")
    assert world.run(first).written == 4
    second = docs(a="one text", b="another text that is longer than two chunks are", d="gone")
    second[0]["brand"] = "other"
    report = world.run(second)
    plan = report.plan
    assert (plan.added, plan.changed, plan.payload_only, plan.deleted, plan.moved) == (1, 1, 1, 1, 1)
    assert (plan.hits, report.computed) == (1, plan.to_compute)
    assert (report.updated, report.removed) == (1, 1)
    check_index(world, second, kind)


def test_a_document_that_goes_back_after_a_crash_is_right(world: SyncWorld, kind: str) -> None:
    """The write of the new text was stored and not recorded; the ledger's digest is that of the old text."""
    old, new = docs(a="the old text"), docs(a="the new text, which has two chunks")
    world.run(old)
    with pytest.raises(Crash):
        world.run(new, around=Dying(3, after=False).around)  # intend, write, confirm
    world.run(old)
    check_index(world, old, kind)


def test_another_model_fills_a_second_collection_while_the_first_one_answers(world: SyncWorld, kind: str) -> None:
    documents = docs(a="one text", b="another text that is longer than a chunk")
    world.run(documents)
    first = serving(world)
    report = world.run(documents, model="new")
    assert not report.serves
    assert serving(world).name == first.name
    with world.opened() as opened:
        assert opened.sink.serving() == first.name
        now = cutover(opened, world.store)
        assert (now.model, opened.sink.serving()) == ("new", now.name)
        with pytest.raises(ConflictError, match="no second collection"):
            cutover(opened, world.store)
        assert rollback(opened, world.store).name == first.name
        assert opened.sink.serving() == first.name
        rollback(opened, world.store)
    check_index(world, documents, kind)
    assert world.run(documents).computed == 0  # going back costs nothing


def test_a_cutover_needs_a_collection_that_is_right(world: SyncWorld) -> None:
    documents = docs(a="one text", b="another text that is longer than a chunk")
    world.run(documents)
    with pytest.raises(Crash):
        world.run(documents, model="new", around=Dying(2, after=True).around)
    with world.opened() as opened, pytest.raises(ConflictError, match="not filled yet"):
        cutover(opened, world.store)
    world.run(documents, model="new")
    with world.opened() as opened:
        new = opened.collections()[-1]
        rows = opened.open(new)
        (ids, _) = next(iter(part for part in rows.read() if part[0]))
        rows.delete(ids[:1])
        with pytest.raises(ConflictError, match="1 chunks missing"):
            cutover(opened, world.store)
        assert opened.sink.serving() != new.name


def test_a_collection_is_dropped_when_it_was_kept_long_enough(world: SyncWorld) -> None:
    documents = docs(a="one text")
    world.run(documents)
    first = serving(world)
    world.run(documents, model="new")
    with world.opened() as opened:
        cutover(opened, world.store)
    world.entry = replace(world.entry, keep="0s")
    world.run(documents, model="new")
    with world.opened() as opened:
        assert [each.model for each in opened.collections()] == ["new"]
        assert first.name not in {each.name for each in opened.collections()}
        with pytest.raises(ConflictError, match="no earlier collection"):
            rollback(opened, world.store)


def test_a_check_finds_and_mends_what_somebody_else_did_to_the_index(world: SyncWorld, kind: str) -> None:
    documents = docs(a="one text", b="another text that is longer than a chunk", c="third")
    world.run(documents)
    with world.opened() as opened:
        collection = opened.serving()
        rows = opened.open(collection)
        everything = rows_in(opened.sink, collection.name)
        ids = sorted(everything, key=lambda each: (everything[each].document, everything[each].number))
        rows.delete(ids[:1])
        wrong = LocalEmbedding(world.local, "fake").embed(["something else"]).vectors
        from semel.sync.sinks import Rows

        rows.write(Rows([ids[1]], ["b"], [0], [everything[ids[1]].text], [{"brand": "b"}], wrong))
        rows.write(Rows([uuid4()], ["nobody's"], [0], ["orphan"], [{"brand": "b"}], wrong))
        rows.finish()
        checker = Checker(opened, collection, world.store, sample=None)
        found = checker.check()
        assert (found.missing, found.orphans, found.wrong, found.compared) == (1, 1, 1, 3)
        checker.repair()
    report = world.run(documents)
    assert (report.plan.changed, report.computed) == (2, 0)
    check_index(world, documents, kind)


def test_a_text_that_fails_keeps_the_old_document(world: SyncWorld, kind: str) -> None:
    """Its old version stays searchable, the others go on, and the next run tries again."""
    first = docs(a="good", b="fine")
    world.run(first)
    report = world.run(docs(a="poison", b="fine and new"))
    assert list(report.failures) == ["a"]
    check_index(world, docs(a="good", b="fine and new"), kind)
    last = docs(a="mended", b="fine and new")
    assert world.run(last).failed == 0
    check_index(world, last, kind)


def test_a_source_that_shrank_is_not_followed(world: SyncWorld, kind: str) -> None:
    documents = [{"id": f"d{i}", "text": f"text {i}", "brand": "b"} for i in range(20)]
    world.run(documents)
    with pytest.raises(TooManyDeletedError, match=r"lost 3 of 20 documents \(15 %\).*--max-delete 100%"):
        world.run(documents[3:], options=RunOptions(max_delete="10%"))
    check_index(world, documents, kind)
    moved = [{**each, "id": f"moved {each['id']}"} for each in documents]
    assert world.run(moved, options=RunOptions(max_delete="10%")).computed == 0
    check_index(world, moved, kind)


def test_rows_without_an_id_delete_nothing(world: SyncWorld, kind: str) -> None:
    documents = docs(a="one text", b="two")
    world.run(documents)
    report = world.run([*docs(a="one text"), {"text": "whose?"}])
    assert (report.failed, report.plan.deleted) == (1, 0)
    assert "none of the 1 that seem to be gone is deleted" in " ".join(report.plan.notes)
    check_index(world, documents, kind)


def test_a_dry_run_writes_nothing(world: SyncWorld) -> None:
    plans: list[Any] = []
    world.run(docs(a="one text"), options=RunOptions(dry_run=True, on_planned=plans.append))
    assert (plans[0].added, plans[0].chunks, plans[0].to_compute) == (1, 1, 1)
    with world.opened() as opened:
        assert opened.sink.serving() is None
        assert opened.collections() == []
        assert opened.ledger.runs("docs") == []


def test_a_sink_that_lost_its_collection_gets_it_again(world: SyncWorld, kind: str) -> None:
    documents = [{**each, "version": "1"} for each in docs(a="one text", b="two")]
    world.run(documents)
    with world.opened() as opened:
        opened.sink.drop(opened.serving().name)
    report = world.run(documents)
    assert "the sink has lost" in report.plan.notes[0]
    assert (report.plan.added, report.computed) == (2, 0)
    check_index(world, documents, kind)


def test_rows_that_the_ledger_does_not_know_are_not_mixed_with_others(world: SyncWorld) -> None:
    world.run(docs(a="one text"))
    with world.opened() as opened:
        forget(opened.ledger, "docs")
    with pytest.raises(ConflictError, match="of which this ledger knows nothing"):
        world.run(docs(b="two"))


def test_a_change_of_the_chunker_that_was_cut_off_and_taken_back_is_made_good(world: SyncWorld, kind: str) -> None:
    documents = [
        {"id": f"d{i}", "text": f"another text {i} that is longer than a chunk", "brand": "b", "version": "1"}
        for i in range(9)
    ]
    world.run(documents)
    before = world.entry
    world.entry = replace(before, chunk=replace(before.chunk, characters=15))
    counting = Counting(LocalEmbedding(world.local, "fake"))
    with pytest.raises(Crash):
        world.run(documents, around=Dying(6, after=True).around, embedding=counting)
    world.entry = before
    assert "was cut off" in world.run(documents).plan.notes[0]
    check_index(world, documents, kind)


def test_other_columns_of_a_query_are_read_whatever_their_version(world: SyncWorld, kind: str) -> None:
    world.run([{**each, "version": "1"} for each in docs(a="one text")])
    world.entry = replace(world.entry, query="select something else")
    changed = [{**each, "version": "1"} for each in docs(a="other text")]
    assert world.run(changed).plan.changed == 1
    check_index(world, changed, kind)


def test_equal_texts_do_not_hide_that_documents_are_gone(world: SyncWorld) -> None:
    world.run([{"id": f"d{i}", "text": "n/a", "brand": "b"} for i in range(10)])
    with pytest.raises(TooManyDeletedError, match="lost 9 of 10"):
        world.run([{"id": "new", "text": "n/a", "brand": "b"}], options=RunOptions(max_delete="10%"))


def test_a_collection_with_far_fewer_documents_does_not_take_over(world: SyncWorld) -> None:
    documents = docs(a="one text", b="two", c="three")
    world.run(documents)
    world.run(documents[:1], model="new")
    world.entry = replace(world.entry, max_delete="10%")
    with world.opened() as opened, pytest.raises(ConflictError, match=r"has 1 documents, and .* has 3"):
        cutover(opened, world.store)


def test_a_run_of_the_old_model_after_a_cutover_can_be_cut_over_again(world: SyncWorld, kind: str) -> None:
    documents = docs(a="one text", b="two")
    world.run(documents)
    world.run(documents, model="new")
    with world.opened() as opened:
        cutover(opened, world.store)
    edited = docs(a="one text", b="two, edited")
    world.run(edited)  # semel.toml still names the old model
    with world.opened() as opened:
        assert cutover(opened, world.store).model == "fake"
    check_index(world, edited, kind)


def test_two_runs_of_one_name_exclude_each_other(world: SyncWorld) -> None:
    world.run(docs(a="one text"))
    with world.opened(), pytest.raises(SyncBusyError):
        world.run(docs(a="another"))
    world.run(docs(a="another"))


def test_a_run_that_lost_its_lease_writes_no_more(world: SyncWorld, kind: str) -> None:
    world.run(docs(a="one text"))

    def steal(opened: OpenedSync) -> OpenedSync:
        opened.ledger.release("docs")
        return opened

    with pytest.raises(ConflictError, match="silent for too long"):
        world.run(docs(a="stolen"), around=steal)
    check_index(world, docs(a="one text"), kind)


def test_a_sink_that_forgets_rows_is_noticed(world: SyncWorld) -> None:
    def forgetful(opened: OpenedSync) -> OpenedSync:
        class Sink:
            def __getattr__(self, name: str) -> Any:
                return getattr(opened.sink, name)

            def open(self, *args: Any, **named: Any) -> Any:
                rows = opened.sink.open(*args, **named)
                rows.write = lambda _rows: None  # type: ignore[method-assign]
                return rows

        return replace(opened, sink=Sink())  # type: ignore[arg-type]

    with pytest.raises(UnavailableError, match=r"confirmed the chunks of 'a', but it does not have them"):
        world.run(docs(a="one text"), around=forgetful)


def test_another_chunker_is_a_visible_plan(world: SyncWorld, kind: str) -> None:
    documents = docs(a="another text that is longer than a chunk")
    world.run(documents)
    world.entry = replace(world.entry, chunk=replace(world.entry.chunk, characters=15))
    report = world.run(documents)
    assert report.plan.notes == ["chunk was characters 20 and is characters 15: every document is read again"]
    check_index(world, documents, kind)
    assert world.run(documents).plan.notes == []


def test_a_field_that_no_document_has_is_part_of_the_plan(world: SyncWorld) -> None:
    world.entry = replace(world.entry, payload=("brand", "colour"))
    assert world.run(docs(a="one", b="two")).plan.notes == [
        "none of the 2 documents that were read has a field 'colour'"
    ]


def test_a_payload_cannot_have_a_field_of_the_index(world: SyncWorld) -> None:
    world.entry = replace(world.entry, payload=("text",))
    with pytest.raises(BadInputError, match="cannot have a field 'text'"):
        world.run(docs(a="one"))


def test_a_dropped_sync_leaves_nothing_but_the_cache(world: SyncWorld) -> None:
    documents = docs(a="one text", b="two")
    world.run(documents)
    with world.opened() as opened:
        name = opened.serving().name
        assert drop(opened) == [name]
        assert opened.sink.serving() is None
    assert world.run(documents).computed == 0


def test_vectors_are_those_of_documents(world: SyncWorld) -> None:
    world.run(docs(a="one text"))
    with world.opened() as opened:
        rows = opened.open(opened.serving())
        ((ids, vectors),) = [part for part in rows.read(list(rows_in(opened.sink, opened.serving().name))) if part[0]]
        assert vectors is not None
        expected = world.local.embed(["one text"], input_type="document")
        assert len(ids) == 1
        assert agree(rows.keeps, np.asarray(vectors), expected).all()
