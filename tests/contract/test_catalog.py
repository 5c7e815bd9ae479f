"""Which spaces model names stand for, on SQLite and on PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from semel.cache.catalog import Catalog
from semel.cache.schema import models
from semel.db import Database
from semel.errors import UnknownModelError
from semel.values.model import Space
from tests.support.values import space


def named(name: str, weights: str, prompt_name: str = "") -> Space:
    made = space(weights=weights, prompt=prompt_name)
    return replace(made, model=name, prompt_name=prompt_name)


@pytest.fixture
def catalog(db: Database) -> Catalog:
    return Catalog(db, default_model="qwen")


def test_a_source_for_a_device_is_chosen_when_that_device_is_requested(catalog: Catalog) -> None:
    full, own = named("qwen", "full"), named("qwen@mlx", "quantised")
    catalog.publish([full], device="cpu")
    catalog.publish([own], device="mlx")
    assert catalog.space("qwen") == full
    assert catalog.space("qwen", device="cuda") == full
    assert catalog.space("qwen", device="mlx") == own
    assert catalog.space("qwen@mlx") == own


def test_a_request_without_a_model_name_gets_the_default_model(catalog: Catalog) -> None:
    full, query = named("qwen", "full"), named("qwen", "full", "query")
    catalog.publish([named("other", "o"), full, query], device="cpu")
    assert [catalog.space(), catalog.space(None, "query"), catalog.space_for_input("", "query")] == [full, query, query]


def test_a_device_source_stands_for_the_name_if_nothing_else_was_ever_served(catalog: Catalog) -> None:
    own, query = named("qwen@mlx", "quantised"), named("qwen@mlx", "quantised", "query")
    catalog.publish([own, query], device="mlx")
    assert catalog.space("qwen") == own
    assert catalog.space("qwen", "query") == query
    assert catalog.space_for_input("qwen", "query") == query
    assert catalog.space_for_input("qwen", "document") == own
    with pytest.raises(UnknownModelError):
        catalog.space("qwe")


def test_a_full_model_takes_its_name_back_from_a_device_source(catalog: Catalog) -> None:
    catalog.publish([named("qwen@mlx", "quantised")], device="mlx")
    full = named("qwen", "full")
    catalog.publish([full], device="cpu")
    assert catalog.space("qwen") == full


def test_a_device_that_serves_the_name_itself_forgets_its_own_source(catalog: Catalog) -> None:
    catalog.publish([named("qwen", "full")], device="cpu")
    catalog.publish([named("qwen@mlx", "quantised")], device="mlx")
    catalog.retire([named("qwen@mlx", "quantised")])
    catalog.publish([named("qwen", "full")], device="mlx")  # its configuration has no source_mlx any more
    assert catalog.space("qwen", device="mlx") == named("qwen", "full")


def test_workers_that_start_together_all_publish(db: Database) -> None:
    spaces = [named(name, "full") for name in ("a", "b", "c")]
    for _ in range(10):
        together = threading.Barrier(4)

        def publish(started: threading.Barrier = together) -> None:
            started.wait()
            Catalog(db, default_model="a").publish(spaces, device="cpu")

        with db.write() as conn:
            conn.execute(models.delete())
        with ThreadPoolExecutor(4) as workers:
            for published in [workers.submit(publish) for _ in range(4)]:
                published.result()
        assert {space.model for space, _ in Catalog(db, default_model="a").all()} == {"a", "b", "c"}
