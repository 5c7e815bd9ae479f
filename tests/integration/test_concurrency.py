"""With many writers and many callers, nothing is lost and nothing is computed twice."""

import multiprocessing
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from semel.backends.engine import Engine
from semel.cache.claims import LocalClaims, RedisClaims
from semel.cache.keys import input_keys
from semel.cache.prune import Pruner
from semel.cache.stats import CacheStats, verify
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import UnavailableError
from semel.pipeline import Pipeline
from semel.settings import Settings
from semel.tasks.worker.embed import Embedder
from semel.tasks.worker.local import LocalSender
from semel.tasks.worker.models import LoadedModels
from semel.values.model import ModelEntry, Space
from semel.values.text import Input, Lane, Outcome
from semel.values.vectors import Computed
from tests.support.local import LocalSemel, local_semel
from tests.support.values import put, space, vectors

PROCESSES = 8
TEXTS_EACH = 400


def _write(url: str, process: int, failures: "multiprocessing.Queue[str]") -> None:
    """Write texts of which half belong to this process alone and half are shared by all."""
    try:
        db = Database(url)
        db.upgrade()
        store = VectorStore(db)
        for i in range(0, TEXTS_EACH, 20):
            texts = [f"own {process} {n}" for n in range(i, i + 10)] + [f"shared {n}" for n in range(i, i + 10)]
            put(store, texts, vectors(20, 64, seed=process))
            assert store.get_many(input_keys(space(64).fingerprint, texts), dim=64).all_present
        db.close()
    except BaseException as error:  # passed on to the test
        failures.put(f"{type(error).__name__}: {error}")
        raise


def test_eight_processes_write_one_database_from_its_first_moment(database_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    failures: multiprocessing.Queue[str] = context.Queue()
    writers = [context.Process(target=_write, args=(database_url, i, failures)) for i in range(PROCESSES)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [w.exitcode for w in writers] == [0] * PROCESSES, failures.get() if not failures.empty() else "hung"
    db = Database(database_url)
    (stats,) = CacheStats(db).by_space()
    assert stats.entries == PROCESSES * TEXTS_EACH // 2 + TEXTS_EACH // 2
    *_, state = verify(db, VectorStore(db))
    assert state.damaged == []
    db.close()


@pytest.fixture
def two_workers(sqlite_db: Database, redis_client: "redis.Redis", tmp_path: Path) -> "list[_Worker]":
    return [_Worker(sqlite_db, RedisClaims(redis_client, ttl_s=10, owner="w"), tmp_path) for _ in range(2)]


class _Worker:
    """A worker with its own engine and claims, as in a process of its own; the store is shared."""

    def __init__(self, db: Database, claims: RedisClaims, home: Path) -> None:
        self.engine = Engine()
        settings = Settings(home=home, models={"fake": ModelEntry("fake:?dim=8&text_ms=1")})
        self.models = LoadedModels(settings, self.engine, device="cpu")
        self.embedder = Embedder(self.engine, VectorStore(db), claims)
        self.space = self.models.spaces("fake")[""]

    def compute(self, texts: list[str]) -> Computed:
        missing = dict(zip(input_keys(self.space.fingerprint, texts), texts, strict=True))
        return self.embedder.compute(self.models.get("fake"), "", missing, lane=Lane.BULK)


def test_two_workers_with_the_same_texts_compute_each_once(two_workers: "list[_Worker]") -> None:
    texts = [f"text {i}" for i in range(300)]
    results: list[Computed] = []
    threads = [
        threading.Thread(target=lambda w=worker, t=order: results.append(w.compute(t)))
        for worker, order in zip(two_workers, (texts, texts[::-1]), strict=True)
    ]
    for worker in two_workers:
        worker.models.get("fake")
    loaded = sum(worker.engine.stats.texts for worker in two_workers)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    outcomes = [list(r.outcomes.values()) for r in results]
    assert [len(o) for o in outcomes] == [300, 300]
    assert sum(o.count(Outcome.COMPUTED) for o in outcomes) == 300
    assert sum(o.count(Outcome.COALESCED) for o in outcomes) == 300
    assert sum(worker.engine.stats.texts for worker in two_workers) - loaded == 300
    for worker in two_workers:
        worker.engine.close()


def test_the_claim_of_a_dead_worker_is_taken_over(
    sqlite_db: Database, redis_client: "redis.Redis", tmp_path: Path
) -> None:
    worker = _Worker(sqlite_db, RedisClaims(redis_client, ttl_s=10, owner="w"), tmp_path)
    worker.models.get("fake")  # loading it must not use up the time of the claim
    dead, taken_at = RedisClaims(redis_client, ttl_s=0.5, owner="w"), time.monotonic()
    dead.take(input_keys(worker.space.fingerprint, ["text"]))  # never renewed or released
    assert list(worker.compute(["text"]).outcomes.values()) == [Outcome.COMPUTED]
    assert time.monotonic() - taken_at >= 0.4, "the text was computed while the dead worker still held the claim"
    worker.engine.close()


class _PrunedAfter:
    """A sender that prunes the whole cache after each of its first `prunes` answers."""

    def __init__(self, semel: LocalSemel, *, prunes: int) -> None:
        self._semel = semel
        self._prunes = prunes
        self._inner = LocalSender(semel.models, Embedder(semel.engine, semel.store, LocalClaims()))

    def compute(self, space: Space, missing: Mapping[bytes, Input], *, lane: Lane = Lane.INTERACTIVE) -> Computed:
        done = self._inner.compute(space, missing, lane=lane)
        done.vectors.clear()  # the answer of a worker has none, so they are read from the cache
        if self._prunes:
            self._prunes -= 1
            Pruner(self._semel.db, keep=lambda *_: []).prune(max_bytes=0)
        return done


def test_vectors_that_a_prune_deletes_during_a_request_are_computed_again(tmp_path: Path) -> None:
    with local_semel(tmp_path) as semel:
        semel.embed("there before")
        pruned = Pipeline(semel.store, _PrunedAfter(semel, prunes=1))
        got = pruned.embed(semel.space(), ["there before", "new", "newer"])
        assert got.errors == {}
        assert (got.vectors == semel.embed("there before", "new", "newer").vectors).all()
        always = Pipeline(semel.store, _PrunedAfter(semel, prunes=9))
        with pytest.raises(UnavailableError, match="was pruned before it could be read"):
            always.embed(semel.space(), ["newest"])
