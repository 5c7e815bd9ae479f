"""Counts of the cache that are kept for a while."""

from types import SimpleNamespace
from typing import Any

from semel.api.watch.contents import CacheContents


def test_what_is_deleted_while_it_is_counted_is_counted_again() -> None:
    counted: list[int] = []

    def stats() -> list[Any]:
        counted.append(1)
        if len(counted) == 1:
            contents.forget()
        return []

    store = SimpleNamespace(by_space=stats, growth=lambda span_s: [])
    contents = CacheContents(store, SimpleNamespace(totals=lambda: None))  # type: ignore[arg-type]
    for _ in range(3):
        contents.read()
    assert len(counted) == 2  # and then it is kept
    contents.forget()
    contents.read()
    assert len(counted) == 3
