"""The chunks and failed texts of a job, as pages for people."""

import pytest

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.tasks.jobs.parts import ChunkView, JobParts
from semel.tasks.jobs.rows import NO_KEY, NewChunk
from semel.values.job import Job
from semel.values.text import Extra, ItemError, Pair
from tests.support.job_rows import BROKEN, SPACE, all_pages, create, finish, lease, submit
from tests.support.jobs import Jobs

EMPTY = ItemError("invalid_text", "is empty")


@pytest.fixture
def parts(db: Database) -> JobParts:
    return JobParts(db)


def with_bad_texts(jobs: Jobs, store: VectorStore, chunks: int) -> Job:
    """Chunks of two texts; the second text of each has no key."""
    job = create(jobs)
    for i in range(chunks):
        keys = [*input_keys(SPACE.fingerprint, [f"t{i}"]), NO_KEY]
        new = NewChunk(2 * i, keys, [f"t{i}", ""], {1: EMPTY}, [None, Extra(f"row {i}", {"n": i})])
        jobs.add_chunks(job, [new], lookup=store.lookup_on)
    return jobs.seal(job.id)


def test_chunks_are_counted_by_state(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job = submit(jobs, store, *"abcde")
    jobs.dispatch(lane=job.lane, device="cpu", window=3)
    lease(jobs, job, 0)
    finish(jobs, lease(jobs, job, 1))
    assert parts.count_by_state(job.id) == {"running": 1, "done": 1, "sent": 1, "pending": 2}
    assert parts.count_by_state("job_nope") == {}


def test_the_chunks_that_workers_hold_are_found(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job, other = submit(jobs, store, *"abc"), submit(jobs, store, "d")
    lease(jobs, job, 0)
    finish(jobs, lease(jobs, job, 1))
    lease(jobs, other, 0)
    asked = {(job.id, 0), (job.id, 1), (job.id, 2), (other.id, 0), ("job_nope", 0)}
    assert parts.running(asked) == {(job.id, 0), (other.id, 0)}
    assert parts.running([(job.id, 1)]) == set()
    assert parts.running([]) == set()


def test_a_chunk_shows_its_worker_while_it_runs(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job = submit(jobs, store, "ab")
    work = lease(jobs, job, owner="worker-1")
    (running,) = parts.chunks(job.id, after=-1, limit=9)
    assert running == ChunkView(0, "running", 0, 2, 0, 1, "worker-1", None)
    finish(jobs, work, failed={1: BROKEN})
    (done,) = parts.chunks(job.id, after=-1, limit=9)
    assert done == ChunkView(0, "done", 0, 2, 1, 1, "", None)


def test_chunks_are_listed_page_by_page(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job = submit(jobs, store, *"abcde")
    pages = [parts.chunks(job.id, after=after, limit=2) for after in (-1, 1, 3, 4)]
    assert [[chunk.position for chunk in page] for page in pages] == [[0, 1], [2, 3], [4], []]


def test_a_bad_text_counts_as_failed_before_its_chunk_has_run(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job = with_bad_texts(jobs, store, 1)
    (chunk,) = parts.chunks(job.id, after=-1, limit=9)
    assert (chunk.state, chunk.failed) == ("pending", 1)


def test_failed_texts_have_their_text_their_fields_and_their_error(
    jobs: Jobs, store: VectorStore, parts: JobParts
) -> None:
    job = with_bad_texts(jobs, store, 2)
    finish(jobs, lease(jobs, job, 1), failed={0: BROKEN})
    first, second, third = parts.failed(job.id, limit=9)
    assert (first.index, first.text, first.extra, first.error) == (1, "", Extra("row 0", {"n": 0}), EMPTY)
    assert (second.index, second.text, second.extra, second.error) == (2, "t1", None, BROKEN)
    assert (third.index, third.extra) == (3, Extra("row 1", {"n": 1}))


def failed_indexes(parts: JobParts, job: Job, limit: int) -> list[int]:
    """The indexes of all failed texts, read page by page."""
    failed = all_pages(lambda last: parts.failed(job.id, after=last.index if last else -1, limit=limit))
    return [text.index for text in failed]


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
def test_failed_texts_are_paged_without_gaps_or_repeats(
    jobs: Jobs, store: VectorStore, parts: JobParts, limit: int
) -> None:
    job = with_bad_texts(jobs, store, 9)  # more chunks than one query reads
    assert len(parts.failed(job.id, limit=limit)) == min(limit, 9)
    assert failed_indexes(parts, job, limit) == [2 * i + 1 for i in range(9)]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_failed_texts_of_one_chunk_may_fill_several_pages(
    jobs: Jobs, store: VectorStore, parts: JobParts, limit: int
) -> None:
    job = submit(jobs, store, "abcde")
    finish(jobs, lease(jobs, job), failed=dict.fromkeys([0, 1, 2, 4], BROKEN))
    assert failed_indexes(parts, job, limit) == [0, 1, 2, 4]


def test_a_failed_pair_is_shown_as_a_pair(jobs: Jobs, store: VectorStore, parts: JobParts) -> None:
    job = create(jobs)
    jobs.add_chunks(job, [NewChunk(0, [b"k" * 32], [Pair("q", "d")])], lookup=store.lookup_on)
    finish(jobs, lease(jobs, job), failed={0: BROKEN})
    (failed,) = parts.failed(job.id, limit=9)
    assert failed.text == Pair("q", "d")
    assert isinstance(failed.text, Pair)
