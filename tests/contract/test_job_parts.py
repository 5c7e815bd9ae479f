"""A look inside a job: its chunks by position, its failed texts by index."""

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.parts import JobParts
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.values.job import Job
from semel.values.text import Extra, ItemError, Lane, Outcome
from tests.support.jobs import Jobs
from tests.support.values import space

SPACE = space()
EMPTY = ItemError("invalid_text", "is empty")


def job_of(db: Database, chunks: int) -> tuple[Jobs, Job]:
    """A job whose chunks have three texts each; the middle text cannot be read."""
    jobs, store = Jobs(db, window_s=60, retention_s=60), VectorStore(db)
    job = jobs.add(SPACE, lane=Lane.BULK, device="cpu", why="test", truncate=True)
    for i in range(chunks):
        texts = [f"a{i}", "", f"c{i}"]
        keys = input_keys(SPACE.fingerprint, [texts[0], texts[2]])
        extras = [None, Extra(f"row {i}", {}), None]
        new = NewChunk(i * 3, [keys[0], NO_KEY, keys[1]], list(texts), {1: EMPTY}, extras)
        jobs.add_chunks(job, [new], lookup=store.lookup_on)
    return jobs, jobs.seal(job.id)


def test_chunks_are_listed_by_position_with_their_states(db: Database) -> None:
    jobs, job = job_of(db, 4)
    work = jobs.lease_one(job.id, 2, owner="worker-1", ttl_s=60)
    assert work is not None
    done = jobs.lease_one(job.id, 1, owner="worker-2", ttl_s=60)
    assert done is not None
    broke = ItemError("backend_error", "broke")
    jobs.finish_one(
        done, [Outcome.COMPUTED, Outcome.FAILED, Outcome.FAILED], {1: EMPTY, 2: broke}, truncated=0, tokens=1
    )
    parts = JobParts(db)
    assert parts.count_by_state(job.id) == {"pending": 2, "running": 1, "done": 1}
    listed = parts.chunks(job.id, after=-1, limit=10)
    assert [(c.position, c.state, c.first_index, c.texts, c.failed) for c in listed] == [
        (0, "pending", 0, 3, 1),
        (1, "done", 3, 3, 2),
        (2, "running", 6, 3, 1),
        (3, "pending", 9, 3, 1),
    ]
    assert [c.worker for c in listed] == ["", "", "worker-1", ""]
    assert [c.position for c in parts.chunks(job.id, after=1, limit=1)] == [2]


def test_failed_texts_are_paged_by_index_across_chunks(db: Database) -> None:
    jobs, job = job_of(db, 7)
    done = jobs.lease_one(job.id, 0, owner="worker", ttl_s=60)
    assert done is not None
    broke = ItemError("backend_error", "broke")
    jobs.finish_one(
        done, [Outcome.COMPUTED, Outcome.FAILED, Outcome.FAILED], {1: EMPTY, 2: broke}, truncated=0, tokens=1
    )
    parts = JobParts(db)
    seen = []
    while page := parts.failed(job.id, after=seen[-1].index if seen else -1, limit=2):
        seen += page
    assert [(f.index, f.error) for f in seen] == [(1, EMPTY), (2, broke), *((i * 3 + 1, EMPTY) for i in range(1, 7))]
    assert (seen[1].text, seen[1].extra) == ("c0", None)
    assert seen[2].extra == Extra("row 1", {})


def test_a_job_without_failures_has_none(db: Database) -> None:
    assert JobParts(db).failed("job_unknown", limit=5) == []
