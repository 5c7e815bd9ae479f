"""The contents of the cache in JSON, and what may be deleted."""

from typing import Any

import pytest
from pydantic import ValidationError

from semel.api.watch.cache_wire import CacheObject, PruneRequest
from semel.api.watch.contents import Contents
from semel.cache.space_use import Totals
from semel.cache.stats import Growth, SpaceStats
from tests.support.service import Service

SPACE = SpaceStats("ab" * 32, "fake", "query", "w1", 16, "full", 9, 576, 1.0, 2.0, 12, 3, 0.5, None)


def test_a_count_of_the_cache_becomes_its_object() -> None:
    counted = Contents([SPACE], [Growth("ab" * 32, 60.0, 9)], 60.0, Totals(20, 5, 1.5))
    shown = CacheObject.model_validate(counted, from_attributes=True).model_dump()
    assert shown["spaces"] == [vars(SPACE)]
    assert shown["growth"] == [{"fingerprint": "ab" * 32, "at": 60.0, "entries": 9}]
    assert shown["totals"] == {"lookups": 20, "hits": 5, "saved_s": 1.5}


def test_a_prune_is_a_dry_run_unless_it_says_otherwise() -> None:
    assert PruneRequest(older_than_s=1).dry_run


@pytest.mark.parametrize("sent", [{"max_bytes": -1}, {"max_bytes": 2**63}, {"older_than_s": -1}, {"older_than": 1}])
def test_a_condition_that_is_none_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(sent))):
        PruneRequest.model_validate(sent)


def test_the_route_shows_the_spaces_and_prunes_them(api: Service) -> None:
    api.http.post("/v1/embeddings", json={"input": ["in the cache", "in it too"]})
    api.services.watch.contents.forget()
    (space,) = api.http.get("/v1/cache").json()["spaces"]
    assert (space["model"], space["entries"], space["dim"]) == ("fake", 2, 16)
    body = {"fingerprint": space["fingerprint"]}
    assert api.http.post("/v1/cache/prune", json=body).json() == {"object": "pruned", "entries": 2, "dry_run": True}
    assert api.http.post("/v1/cache/prune", json={**body, "dry_run": False}).json()["entries"] == 2
    assert api.http.get("/v1/cache").json()["spaces"] == []
