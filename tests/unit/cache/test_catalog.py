"""The catalog: which weights may take a name, what a name stands for, and how old an answer may be."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import Connection, update

from semel.cache.catalog import LIVE_S, Catalog
from semel.cache.schema import models
from semel.db import Database
from semel.errors import BadInputError, FingerprintError, UnavailableError, UnknownModelError, UnknownPromptError
from semel.values.model import Space
from tests.support.values import space


def named(model: str, weights: str = "w1", *, prompt_name: str = "") -> Space:
    return replace(space(weights=weights, prompt=prompt_name), model=model, prompt_name=prompt_name)


@pytest.fixture
def catalog(db: Database) -> Catalog:
    return Catalog(db, default_model="m")


def last_seen(db: Database, seconds_ago: float) -> None:
    with db.write() as conn:
        conn.execute(update(models).values(seen_at=time.time() - seconds_ago))


# Which weights may take a name


def test_other_weights_cannot_take_the_name_of_a_live_worker(catalog: Catalog) -> None:
    catalog.publish([named("m", "w1")], device="cpu")
    with pytest.raises(FingerprintError) as refused:
        catalog.publish([named("m", "w2")], device="cpu")
    message = str(refused.value)
    assert named("m", "w1").fingerprint.hex() in message
    assert named("m", "w2").fingerprint.hex() in message
    assert "they differ in: weights" in message
    assert catalog.space("m") == named("m", "w1")


def test_one_refused_space_keeps_the_others_from_being_published(catalog: Catalog) -> None:
    catalog.publish([named("m", "w1")], device="cpu")
    with pytest.raises(FingerprintError):
        catalog.publish([named("new"), named("m", "w2")], device="cpu")
    with pytest.raises(UnknownModelError):
        catalog.space("new")


def test_the_same_weights_may_be_published_by_any_number_of_workers(catalog: Catalog) -> None:
    catalog.publish([named("m")], device="cpu")
    catalog.publish([named("m")], device="cuda:0")
    assert catalog.find("m") == (named("m"), "cuda:0")


def test_other_weights_take_the_name_of_a_worker_that_stopped(catalog: Catalog) -> None:
    catalog.publish([named("m", "w1")], device="cpu")
    catalog.retire([named("m", "w1")])
    catalog.publish([named("m", "w2")], device="cpu")
    assert catalog.space("m") == named("m", "w2")


def test_other_weights_take_the_name_of_a_worker_that_was_not_seen_for_a_while(catalog: Catalog, db: Database) -> None:
    catalog.publish([named("m", "w1")], device="cpu")
    last_seen(db, LIVE_S + 1)
    catalog.publish([named("m", "w2")], device="cpu")
    assert catalog.space("m") == named("m", "w2")


def test_a_worker_that_is_seen_again_keeps_its_name(catalog: Catalog, db: Database) -> None:
    catalog.publish([named("m", "w1")], device="cpu")
    last_seen(db, LIVE_S + 1)
    catalog.touch([named("m", "w1")])
    with pytest.raises(FingerprintError):
        catalog.publish([named("m", "w2")], device="cpu")


def test_a_retired_model_stays_known(catalog: Catalog) -> None:
    catalog.publish([named("m"), named("m", prompt_name="query")], device="cpu")
    catalog.retire([named("m")])
    assert catalog.space("m") == named("m")
    (plain, plain_seen_at), (query, query_seen_at) = catalog.all()
    assert (plain.prompt_name, plain_seen_at) == ("", 0.0)
    assert query.prompt_name == "query"
    assert query_seen_at > time.time() - 60


def test_a_space_is_read_back_as_it_was_published(catalog: Catalog) -> None:
    published = replace(named("m"), matryoshka_dims=(2, 3), dim=4)
    catalog.publish([published], device="cpu")
    assert catalog.space("m") == published
    assert json.loads(catalog.space("m").spec_json)["weights"] == "w1"


# What a name stands for


def test_an_unknown_model_is_refused_with_the_known_ones(catalog: Catalog) -> None:
    catalog.publish([named("b"), named("a"), named("a", prompt_name="query")], device="cpu")
    with pytest.raises(UnknownModelError, match=r"no model named 'c' \(known: a, b\)"):
        catalog.space("c")


def test_an_unknown_prompt_is_refused_with_the_prompts_of_its_model(catalog: Catalog) -> None:
    catalog.publish([named("a"), named("a", prompt_name="query"), named("b", prompt_name="other")], device="cpu")
    with pytest.raises(UnknownPromptError, match=r"model 'a' has no prompt 'nope' \(it has: query\)"):
        catalog.space("a", "nope")
    with pytest.raises(UnknownPromptError, match=r"model 'b' has no prompt 'nope' \(it has: other\)"):
        catalog.space("b", "nope")


def test_a_model_without_prompts_is_known_to_have_none(catalog: Catalog) -> None:
    catalog.publish([named("a")], device="cpu")
    with pytest.raises(UnknownPromptError, match=r"model 'a' has no prompt 'nope' \(it has: none\)"):
        catalog.space("a", "nope")


def test_a_prompt_that_a_model_has_on_no_device_is_refused_with_those_that_it_has(catalog: Catalog) -> None:
    catalog.publish([named("a@mlx"), named("a@mlx", prompt_name="query")], device="mlx")
    with pytest.raises(UnknownPromptError, match=r"model 'a' has no prompt 'nope' \(it has: query\)"):
        catalog.space("a", "nope")


def test_a_configured_model_that_no_worker_has_served_is_unavailable(db: Database) -> None:
    catalog = Catalog(db, default_model="m", configured=("m", "a"))
    for name in (None, "a"):
        with pytest.raises(UnavailableError, match="is configured, and no worker has served it yet; start one"):
            catalog.space(name)
    with pytest.raises(UnknownModelError, match="no model named 'b'"):
        catalog.space("b")
    catalog.publish([named("a")], device="cpu")
    assert catalog.space("a") == named("a")


def test_a_catalog_without_models_refuses_the_default_model(catalog: Catalog) -> None:
    with pytest.raises(UnknownModelError, match=r"'m' \(known: none yet\)"):
        catalog.space()


@pytest.mark.parametrize("name", ["a\0b", "a\ud800", "line\nbreak", "\x1b[31m"])
def test_a_name_that_cannot_be_printed_is_refused_without_repeating_it(catalog: Catalog, name: str) -> None:
    for arguments in ((name,), ("m", name)):
        with pytest.raises(BadInputError, match="cannot be printed") as refused:
            catalog.space(*arguments)
        assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("prompts", "input_type", "chosen"),
    [
        (["query", "document"], "query", "query"),
        (["search_query", "search_document"], "query", "search_query"),
        (["passage", "document"], "document", "document"),
        (["passage"], "document", "passage"),
        (["passage"], "query", ""),
        (["query"], None, ""),
    ],
)
def test_an_input_type_chooses_the_prompt_that_the_author_named_for_it(
    catalog: Catalog, prompts: list[str], input_type: str | None, chosen: str
) -> None:
    catalog.publish([named("m"), *(named("m", prompt_name=prompt) for prompt in prompts)], device="cpu")
    assert catalog.space_for_input("m", input_type).prompt_name == chosen  # type: ignore[arg-type]


def test_a_source_for_one_gpu_serves_every_gpu_of_its_kind(catalog: Catalog) -> None:
    catalog.publish([named("m")], device="cpu")
    catalog.publish([named("m@cuda", "quantised")], device="cuda:0")
    assert catalog.space("m", device="cuda:3") == named("m@cuda", "quantised")
    assert catalog.space_for_input("m", "query", device="cuda:3") == named("m@cuda", "quantised")


# How old an answer may be


@contextmanager
def counted_reads(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A list that grows by one with each read of the database."""
    reads: list[str] = []
    read = db.read

    @contextmanager
    def counting() -> Iterator[Connection]:
        reads.append("read")
        with read() as conn:
            yield conn

    with monkeypatch.context() as patched:
        patched.setattr(db, "read", counting)
        yield reads


def test_many_requests_cost_one_read(catalog: Catalog, db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.publish([named("m"), named("m", prompt_name="query")], device="cpu")
    with counted_reads(db, monkeypatch) as reads:
        for _ in range(20):
            catalog.space("m")
            catalog.space_for_input("m", "query")
    assert reads == ["read"]


def test_a_model_that_another_process_published_is_found_at_once(catalog: Catalog, db: Database) -> None:
    catalog.publish([named("m")], device="cpu")
    assert catalog.space("m") == named("m")
    Catalog(db, default_model="m").publish([named("new")], device="cpu")
    assert catalog.space("new") == named("new")


def test_weights_that_another_process_changed_are_found_after_a_second(
    catalog: Catalog, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("semel.kept.time.monotonic", lambda: now[0])
    catalog.publish([named("m", "w1")], device="cpu")
    assert catalog.space("m") == named("m", "w1")
    other = Catalog(db, default_model="m")
    other.retire([named("m", "w1")])
    other.publish([named("m", "w2")], device="cpu")
    now[0] += 0.9
    assert catalog.space("m") == named("m", "w1"), "the kept copy"
    now[0] += 0.2
    assert catalog.space("m") == named("m", "w2")
