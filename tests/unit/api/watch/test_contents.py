"""Counts of the cache that are kept for a while."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from semel.api.watch import contents as module
from semel.api.watch.contents import CacheContents
from tests.support.parts import Parts
from tests.support.processes import wait_until


class Stats:
    """Stands for `CacheStats`; counts its readings.

    Attributes:
        go: readings wait for it.
        on_read: called in each reading.
    """

    def __init__(self) -> None:
        self.readings = 0
        self.go = threading.Event()
        self.go.set()
        self.on_read: Any = lambda: None

    def by_space(self) -> list[Any]:
        self.readings += 1
        self.on_read()
        self.go.wait(10)
        return []

    def growth(self, *, span_s: float) -> list[Any]:
        return []


def counting(stats: Stats) -> CacheContents:
    return CacheContents(stats, SimpleNamespace(totals=lambda: None))  # type: ignore[arg-type]


def test_a_count_is_kept() -> None:
    stats = Stats()
    contents = counting(stats)
    assert contents.read() is contents.read()
    assert stats.readings == 1


def test_a_deletion_discards_the_count() -> None:
    stats = Stats()
    contents = counting(stats)
    contents.read()
    contents.forget()
    contents.read()
    assert stats.readings == 2


def test_what_is_deleted_while_it_is_counted_is_counted_again() -> None:
    stats = Stats()
    contents = counting(stats)
    stats.on_read = lambda: contents.forget() if stats.readings == 1 else None
    for _ in range(3):
        contents.read()
    assert stats.readings == 2  # and then it is kept


def test_while_one_thread_counts_the_others_receive_the_last_result() -> None:
    stats = Stats()
    contents = counting(stats)
    last = contents.read()
    contents.forget()
    stats.go.clear()
    counter = threading.Thread(target=contents.read)
    counter.start()
    wait_until(lambda: stats.readings == 2, timeout_s=10)
    assert contents.read() is last
    stats.go.set()
    counter.join()
    assert contents.read() is not last
    assert stats.readings == 2


def test_without_a_last_result_the_others_wait_for_the_first() -> None:
    stats, found = Stats(), list[Any]()
    contents = counting(stats)
    stats.go.clear()
    threads = [threading.Thread(target=lambda: found.append(contents.read())) for _ in range(4)]
    for thread in threads:
        thread.start()
    stats.go.set()
    for thread in threads:
        thread.join()
    assert (stats.readings, len({id(one) for one in found})) == (1, 1)


def test_a_slow_count_is_kept_twenty_times_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, kept, stats = [100.0], list[float](), Stats()
    clock = SimpleNamespace(monotonic=lambda: now[0], time=time.time)
    monkeypatch.setattr(module, "time", clock)
    contents = counting(stats)
    monkeypatch.setattr(contents._kept, "put", lambda value, *, seconds: kept.append(seconds))
    contents.read()
    stats.on_read = lambda: now.__setitem__(0, now[0] + 3.0)
    contents.read()
    assert kept == [5.0, 60.0]


# With a real cache


def test_spaces_growth_and_totals_are_those_of_the_cache(running: Parts) -> None:
    services = running.services
    space = services.stores.catalog.space("fake")
    for _ in range(2):
        services.pipeline.embed(space, ["one in the cache", "another in the cache"])
    services.stores.space_use.write()
    services.watch.contents.forget()
    found = services.watch.contents.read()
    (held,) = found.spaces
    assert (held.model, held.entries, held.dim) == ("fake", 2, 16)
    assert sum(span.entries for span in found.growth) == 2
    assert (found.totals.lookups, found.totals.hits) == (4, 2)
    assert found.span_s == 60.0, "a young cache has spans of a minute"


def test_growth_has_at_most_about_sixty_spans(running: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    running.services.pipeline.embed(running.services.stores.catalog.space("fake"), ["counted an hour later"])
    two_hours = SimpleNamespace(time=lambda: time.time() + 7200, monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", two_hours)
    running.services.watch.contents.forget()
    assert running.services.watch.contents.read().span_s == pytest.approx(120, abs=2)
    running.services.watch.contents.forget()
