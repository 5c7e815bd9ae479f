"""Python's collector of cycles: rare in processes of semel's own, as it was in those of others."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from semel import collector


@pytest.fixture(autouse=True)
def collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    thresholds = gc.get_threshold()
    monkeypatch.setattr(collector._Process, "belongs_to_semel", False)
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Model:
    """It refers to itself, as models do."""

    def __init__(self) -> None:
        self.itself = self


def test_in_a_users_process_nothing_is_left_out_of_collections() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    collector.keep_loaded()
    collector.forget_unloaded()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_in_a_process_of_semel_what_was_loaded_is_left_out_of_collections() -> None:
    collector.relax()
    model = Model()
    frozen = gc.get_freeze_count()
    collector.keep_loaded()
    assert gc.get_freeze_count() > frozen
    assert gc.get_threshold()[0] > 700
    del model


def test_a_model_that_was_unloaded_is_freed_although_it_was_left_out() -> None:
    collector.relax()
    model = Model()
    gone = weakref.ref(model)
    collector.keep_loaded()
    del model
    gc.collect()
    assert gone() is not None
    collector.forget_unloaded()
    assert gone() is None
