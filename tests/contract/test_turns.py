"""Whose turn it is: owners share a queue, and so do the jobs of an owner, however many jobs are open."""

from collections import Counter
from collections.abc import Sequence

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.rows import Finished, NewChunk
from semel.tasks.jobs.turns import Window
from semel.values.job import Job, Submitter
from semel.values.read_counts import ReadCounts
from semel.values.text import Lane, Outcome
from tests.support.job_rows import SPACE
from tests.support.jobs import Jobs
from tests.support.values import space

OTHER = space(weights="w2")


@pytest.fixture
def jobs(db: Database) -> Jobs:
    return Jobs(db, window_s=600, retention_s=600)


def submit(
    jobs: Jobs,
    store: VectorStore,
    name: str,
    *,
    chunks: int = 1,
    weight: float = 1.0,
    owner: str = "",
    share: float = 1.0,
) -> Job:
    who = Submitter(owner, share)
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True, submitter=who)
    texts = [f"{name} {i}" for i in range(chunks)]
    new = [NewChunk(i, input_keys(SPACE.fingerprint, [t]), [t], weight=weight) for i, t in enumerate(texts)]
    jobs.add_chunks(job, new, lookup=store.lookup_on)
    return jobs.seal(job.id)


def take(jobs: Jobs, *, window: int = 8, served: Sequence[bytes] | None = None) -> list[tuple[str, int]]:
    return jobs.dispatch(lane=Lane.BULK, device="cpu", window=window, served=served)


def finish(jobs: Jobs, place: tuple[str, int]) -> None:
    work = jobs.lease_one(*place, owner="w", ttl_s=60)
    assert work is not None
    assert jobs.finish_one(work, [Outcome.COMPUTED], {}, truncated=0, tokens=1)


def drain(jobs: Jobs, *, count: int, window: int = 8) -> list[str]:
    """Finish this many chunks in the order in which they are sent; returns the job of each."""
    under_way, order = take(jobs, window=window), list[str]()
    while len(order) < count:
        place = under_way.pop(0)
        finish(jobs, place)
        order.append(place[0])
        under_way += take(jobs, window=window)
    return order


def test_every_open_job_gets_a_turn_however_many_there_are(jobs: Jobs, store: VectorStore) -> None:
    made = [submit(jobs, store, f"job {i}", chunks=3) for i in range(40)]
    order = drain(jobs, count=40 + 7)
    assert {job.id for job in made} == set(order), "each has had a turn before one had its third"


def test_a_new_job_waits_for_the_window_and_for_one_turn_of_each_other_job(jobs: Jobs, store: VectorStore) -> None:
    for i in range(12):
        submit(jobs, store, f"large {i}", chunks=30)
    under_way = take(jobs)
    small = submit(jobs, store, "small")
    order = list[str]()
    while small.id not in order:
        place = under_way.pop(0)
        finish(jobs, place)
        order.append(place[0])
        under_way += take(jobs)
    assert len(order) <= 8 + 12 + 1


def test_one_owners_thousand_jobs_do_not_starve_anothers_one(jobs: Jobs, store: VectorStore) -> None:
    for i in range(300):
        submit(jobs, store, f"crowd {i}", owner="crowd")
    lone = submit(jobs, store, "lone", chunks=10, owner="lone")
    order = drain(jobs, count=20)
    assert order.count(lone.id) == pytest.approx(10, abs=4), "half of the turns"


def test_owners_get_turns_in_proportion_to_their_shares(jobs: Jobs, store: VectorStore) -> None:
    big = submit(jobs, store, "big", chunks=60, owner="big", share=3.0)
    submit(jobs, store, "plain", chunks=60, owner="plain")
    order = Counter(drain(jobs, count=40))
    assert order[big.id] == pytest.approx(30, abs=3)


def test_light_chunks_fill_the_window_by_their_weight(jobs: Jobs, store: VectorStore) -> None:
    for i in range(100):
        submit(jobs, store, f"light {i}", weight=1 / 64)
    assert len(take(jobs, window=1)) == 64


def test_among_equal_jobs_the_older_one_goes_first(jobs: Jobs, store: VectorStore) -> None:
    made = [submit(jobs, store, f"{i}") for i in range(20)]
    assert [job_id for job_id, _ in take(jobs, window=5)] == [job.id for job in made[:5]]


def test_a_space_that_waits_for_its_model_leaves_the_others_their_window(jobs: Jobs, store: VectorStore) -> None:
    """As while a model loads: its chunks are under way and do not end."""
    loading = jobs.add(OTHER, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    texts = [f"{i}" for i in range(20)]
    new = [NewChunk(i, input_keys(OTHER.fingerprint, [t]), [t]) for i, t in enumerate(texts)]
    jobs.add_chunks(loading, new, lookup=store.lookup_on)
    assert len(take(jobs)) == 8
    job = submit(jobs, store, "served at once", chunks=3)
    assert take(jobs) == [(job.id, 0), (job.id, 1), (job.id, 2)]


def test_what_is_not_served_is_not_sent(jobs: Jobs, store: VectorStore) -> None:
    submit(jobs, store, "waits")
    assert take(jobs, served=[OTHER.fingerprint]) == []
    assert len(take(jobs, served=[OTHER.fingerprint, SPACE.fingerprint])) == 1


def test_a_chunk_is_sent_once(jobs: Jobs, store: VectorStore) -> None:
    submit(jobs, store, "once", chunks=3)
    assert len(take(jobs)) == 3
    assert take(jobs) == []


def test_finishing_chunks_takes_the_next_turns_in_the_same_transaction(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "job", chunks=6)
    places = take(jobs, window=2)
    works = jobs.lease(places, owner="w", ttl_s=60)
    finished = [Finished(work, [Outcome.COMPUTED], {}, ReadCounts(tokens=1)) for work in works]
    recorded, turns = jobs.finish(finished, Window(Lane.BULK, "cpu", 2))
    assert recorded == [True, True]
    assert [turn[:2] for turn in turns] == [(job.id, 2), (job.id, 3)]
    assert jobs.get(job.id).chunks_done == 2
