"""The job store: submitting, listing, reading results, cancelling and deleting."""

import time

import pytest
from sqlalchemy import select

from semel.cache.keys import input_keys
from semel.cache.store import VectorStore
from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.holding import Holding
from semel.tasks.jobs.rows import NO_KEY, Added, NewChunk
from semel.tasks.jobs.schema import chunks, webhooks
from semel.tasks.jobs.schema import jobs as job_table
from semel.tasks.jobs.webhooks import WebhookStore
from semel.values.activation import AS_STORED
from semel.values.job import JobStatus
from semel.values.text import Extra, ItemError, Lane, Outcome
from semel.values.variant import AS_DEFINED, Variant
from tests.support.job_rows import (
    BROKEN,
    SPACE,
    all_pages,
    change,
    create,
    finish,
    job_row,
    lease,
    new_chunk,
    states,
    submit,
)
from tests.support.jobs import Jobs
from tests.support.values import PRODUCER, put, space, vectors

EMPTY = ItemError("invalid_text", "is empty")

# Submitting


def test_a_new_job_has_what_it_was_created_with(jobs: Jobs, db: Database) -> None:
    before = time.time()
    job = create(jobs, device="mlx", lane=Lane.INTERACTIVE, truncate=False, metadata={"a": "b"}, waits=True)
    assert (job.status, job.device, job.lane, job.truncate) == (JobStatus.VALIDATING, "mlx", Lane.INTERACTIVE, False)
    assert (job.model, job.prompt_name, job.fingerprint, job.dim) == ("m", "", SPACE.fingerprint, 4)
    assert (job.total, job.chunks, job.counts.done, job.why, job.metadata) == (0, 0, 0, "test", {"a": "b"})
    assert job.expires_at == pytest.approx(job.created_at + 60)
    assert job.created_at >= before
    row = job_row(db, job)
    assert (row.first_device, row.waits, row.if_no_worker, row.traceparent) == ("mlx", True, "wait", None)


def test_a_job_of_a_variant_is_served_where_its_model_is_and_has_keys_of_its_own(jobs: Jobs) -> None:
    variant = Variant(max_tokens=5, truncate_side="left", normalize=False, document_tokens=3)
    made = SPACE.with_variant(variant)
    job, plain = create(jobs, into=made), create(jobs)
    assert (job.variant, job.fingerprint, job.key_base) == (variant, SPACE.fingerprint, made.key_base)
    assert (plain.variant, plain.fingerprint, plain.key_base) == (AS_DEFINED, SPACE.fingerprint, SPACE.key_base)


def test_a_job_of_pairs_keeps_how_its_logits_become_scores(jobs: Jobs) -> None:
    job = create(jobs, into=space(1, kind="cross-encoder", pooling='{"activation":"Tanh"}'))
    assert (job.head.activation, create(jobs).head.activation) == ("Tanh", "Identity")


def test_a_job_of_one_number_that_an_older_api_made_is_one_of_scores(jobs: Jobs, db: Database) -> None:
    job = create(jobs, into=space(1, kind="cross-encoder", pooling="[]"))
    with db.write() as conn:
        conn.execute(job_table.update().values(kind="embed", head=""))
    assert (jobs.get(job.id).kind, jobs.get(job.id).head) == ("cross-encoder", AS_STORED)


def test_every_job_has_its_own_id(jobs: Jobs) -> None:
    ids = {create(jobs).id for _ in range(20)}
    assert len(ids) == 20
    assert all(job_id.startswith("job_") for job_id in ids)


def test_added_texts_are_counted_as_done_only_with_their_whole_chunk(jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a", "b", "c"], vectors(3))
    job = create(jobs)
    added = jobs.add_chunks(job, [new_chunk(0, "a", "b"), new_chunk(2, "c", "missing")], lookup=store.lookup_on)
    assert added == Added(done=2, present=3)
    job = jobs.seal(job.id)
    assert (job.status, job.total, job.chunks, job.chunks_done) == (JobStatus.IN_PROGRESS, 4, 2, 1)
    assert job.counts.hit == 2


def test_chunks_of_several_calls_are_numbered_in_order(jobs: Jobs, store: VectorStore) -> None:
    job = create(jobs)
    jobs.add_chunks(job, [new_chunk(0, "a"), new_chunk(1, "b")], lookup=store.lookup_on)
    jobs.add_chunks(job, [new_chunk(2, "c")], lookup=store.lookup_on)
    jobs.seal(job.id)
    assert [lease(jobs, job, position).texts() for position in range(3)] == [["a"], ["b"], ["c"]]


def test_a_chunk_with_nothing_but_bad_texts_is_done_at_once(jobs: Jobs, store: VectorStore) -> None:
    job = create(jobs)
    bad = NewChunk(0, [NO_KEY, NO_KEY], ["", ""], {0: EMPTY, 1: EMPTY})
    assert jobs.add_chunks(job, [bad], lookup=store.lookup_on) == Added(done=0, present=0)
    job = jobs.seal(job.id)
    assert (job.status, job.counts.failed) == (JobStatus.COMPLETED, 2)


def test_hits_and_bad_texts_together_are_done_at_once(jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a"], vectors(1))
    job = create(jobs)
    keys = [*input_keys(SPACE.fingerprint, ["a"]), NO_KEY]
    assert jobs.add_chunks(job, [NewChunk(0, keys, ["a", ""], {1: EMPTY})], lookup=store.lookup_on).done == 1
    (result,) = jobs.results(jobs.seal(job.id).id)
    assert result.outcomes == [Outcome.HIT, Outcome.FAILED]
    assert result.errors == {1: EMPTY}


def test_the_tokens_of_hits_are_counted(jobs: Jobs, store: VectorStore) -> None:
    keys = input_keys(SPACE.fingerprint, ["a", "b"])
    store.put_many(SPACE, keys, vectors(2), tokens=[7, 256], truncated=[False, True], producer=PRODUCER)
    counts = submit(jobs, store, "ab").counts
    assert (counts.hit, counts.tokens, counts.truncated) == (2, 263, 1)


def test_a_look_up_that_fails_adds_nothing(jobs: Jobs, store: VectorStore) -> None:
    job = create(jobs)

    def failing(*_: object) -> None:
        raise RuntimeError("the look-up failed")

    with pytest.raises(RuntimeError, match="the look-up failed"):
        jobs.add_chunks(job, [new_chunk(0, "a")], lookup=failing)  # type: ignore[arg-type]
    assert (jobs.get(job.id).total, jobs.get(job.id).chunks) == (0, 0)


def test_a_sealed_job_accepts_no_more_texts(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    with pytest.raises(ConflictError, match=f"job {job.id} accepts no more texts"):
        jobs.add_chunks(job, [new_chunk(1, "b")], lookup=store.lookup_on)
    assert jobs.get(job.id).total == 1


def test_a_job_without_texts_completes_when_it_is_sealed(jobs: Jobs) -> None:
    job = create(jobs)
    assert jobs.seal(job.id).status is JobStatus.COMPLETED


def test_sealing_does_not_revive_a_cancelled_job(jobs: Jobs) -> None:
    job = create(jobs)
    jobs.cancel(job.id)
    assert jobs.seal(job.id).status is JobStatus.CANCELLED


def test_a_touched_upload_counts_as_active(jobs: Jobs, db: Database) -> None:
    job = create(jobs)
    change(db, job_table, touched_at=0.0)
    jobs.touch(job.id)
    assert job_row(db, job).touched_at > time.time() - 60


# Reading


def test_an_unknown_job_is_not_found(jobs: Jobs) -> None:
    for method in (jobs.get, jobs.cancel, jobs.delete):
        with pytest.raises(NotFoundError, match="no job 'job_nope'"):
            method("job_nope")
    with pytest.raises(NotFoundError):
        jobs.list_jobs(limit=1, after="job_nope")
    assert not jobs.any_active(["job_nope"])
    assert list(jobs.results("job_nope")) == []


def test_jobs_are_listed_by_status_and_model(jobs: Jobs, store: VectorStore) -> None:
    running = submit(jobs, store, "a")
    failed = submit(jobs, store, "b")
    jobs.fail(failed.id, BROKEN)
    uploading = create(jobs, into=space(weights="w2"))
    assert [job.id for job in jobs.list_jobs(limit=9)] == [uploading.id, failed.id, running.id]
    assert [job.id for job in jobs.list_jobs(limit=9, status=JobStatus.FAILED)] == [failed.id]
    assert [job.id for job in jobs.list_jobs(limit=9, model="m")] == [uploading.id, failed.id, running.id]
    assert jobs.list_jobs(limit=9, model="other") == []
    assert [job.id for job in jobs.list_jobs(limit=9, after=failed.id)] == [running.id]


def test_jobs_of_the_same_moment_are_each_listed_once(jobs: Jobs, db: Database) -> None:
    made = {create(jobs).id for _ in range(5)}
    change(db, job_table, created_at=1000.0)
    listed = all_pages(lambda last: jobs.list_jobs(limit=2, after=last and last.id))
    assert len(listed) == 5
    assert {job.id for job in listed} == made


def test_the_jobs_that_exist_are_found_by_their_ids(jobs: Jobs) -> None:
    first, second = create(jobs), create(jobs)
    assert {job.id for job in jobs.find([first.id, "job_nope", second.id])} == {first.id, second.id}
    assert jobs.find([]) == []


def test_open_jobs_are_listed_the_oldest_first(jobs: Jobs, store: VectorStore) -> None:
    uploading, running, ended = create(jobs), submit(jobs, store, "a"), submit(jobs, store, "b")
    jobs.fail(ended.id, BROKEN)
    assert [job.id for job in jobs.list_open(limit=9)] == [uploading.id, running.id]
    assert [job.id for job in jobs.list_open(limit=1)] == [uploading.id]


def test_results_are_the_finished_chunks_in_order(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, *[f"{letter}{letter.upper()}" for letter in "abcdefghijkl"])
    for position in (11, 0, 9, 4):
        finish(jobs, lease(jobs, job, position))
    results = list(jobs.results(job.id))
    assert [result.first_index for result in results] == [0, 8, 18, 22]
    assert [result.texts() for result in results] == [None] * 4, "texts go when they have a vector"
    assert results[0].keys == input_keys(SPACE.fingerprint, ["a", "A"])


def test_a_chunk_with_a_failed_text_keeps_its_texts_for_a_retry(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "ab")
    finish(jobs, lease(jobs, job, 0), failed={1: BROKEN})
    (result,) = jobs.results(job.id)
    assert result.texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("first", "stop", "found"),
    [(0, None, [0, 3, 5]), (2, 3, [0]), (3, None, [3, 5]), (4, 6, [3, 5]), (0, 3, [0]), (6, None, []), (2, 4, [0, 3])],
)
def test_results_of_a_range_are_the_chunks_that_overlap_it(
    jobs: Jobs, store: VectorStore, first: int, stop: int | None, found: list[int]
) -> None:
    put(store, list("abcdef"), vectors(6))
    job = submit(jobs, store, "abc", "de", "f")
    assert [result.first_index for result in jobs.results(job.id, first=first, stop=stop)] == found


def test_results_carry_the_extra_fields_of_their_rows(jobs: Jobs, store: VectorStore) -> None:
    put(store, ["a", "b"], vectors(2))
    job = create(jobs)
    chunk = NewChunk(0, input_keys(SPACE.fingerprint, "ab"), ["a", "b"], {}, [Extra(7, {"t": 1}), None])
    jobs.add_chunks(job, [chunk], lookup=store.lookup_on)
    (result,) = jobs.results(job.id)
    assert list(result.extras) == [Extra(7, {"t": 1}), None]


def test_the_needed_keys_of_many_chunks_are_read_completely(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = create(jobs)
    texts = [f"t{i}" for i in range(300)]  # more chunks than one query reads
    jobs.add_chunks(job, [new_chunk(i, text) for i, text in enumerate(texts)], lookup=store.lookup_on)
    submit(jobs, store, "ab")
    with db.read() as conn:
        needed = b"".join(Holding(db).needed_keys(conn))
    expected = input_keys(SPACE.fingerprint, [*texts, "a", "b"])
    assert sorted(needed[at : at + 32] for at in range(0, len(needed), 32)) == sorted(expected)
    change(db, job_table, expires_at=0.0)
    with db.read() as conn:
        assert list(Holding(db).needed_keys(conn)) == [], "expired jobs need nothing"


# Cancelling and deleting


def test_a_job_without_running_chunks_is_cancelled_at_once(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job = submit(jobs, store, "a", "b")
    cancelled = jobs.cancel(job.id)
    assert cancelled.status is JobStatus.CANCELLED
    assert cancelled.cancelling_at is not None
    assert states(db, job) == ["cancelled", "cancelled"]


def test_cancelling_twice_keeps_the_time_of_the_first(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    lease(jobs, job)
    first = jobs.cancel(job.id)
    assert first.status is JobStatus.CANCELLING
    assert jobs.cancel(job.id) == first


@pytest.mark.parametrize("status", ["completed", "failed", "expired"])
def test_a_job_that_ended_otherwise_cannot_be_cancelled(jobs: Jobs, db: Database, status: str) -> None:
    job = create(jobs)
    change(db, job_table, status=status)
    with pytest.raises(ConflictError, match=f"job {job.id} is {status} and cannot be cancelled"):
        jobs.cancel(job.id)


def test_a_job_is_active_until_it_is_cancelled_or_ends(jobs: Jobs, store: VectorStore) -> None:
    job = create(jobs)
    assert jobs.any_active([job.id])
    jobs.add_chunks(job, [new_chunk(0, "a")], lookup=store.lookup_on)
    assert jobs.any_active([jobs.seal(job.id).id])
    lease(jobs, job)
    jobs.cancel(job.id)
    assert not jobs.any_active([job.id])


def test_a_deleted_job_leaves_no_rows(jobs: Jobs, store: VectorStore, db: Database) -> None:
    job, other = submit(jobs, store, "a", "b"), submit(jobs, store, "c")
    for one in (job, other):
        WebhookStore(db).add(one.id, "https://example.org")
    jobs.fail(job.id, BROKEN)
    jobs.delete(job.id)
    with pytest.raises(NotFoundError):
        jobs.get(job.id)
    with db.read() as conn:
        assert set(conn.execute(select(chunks.c.job_id)).scalars()) == {other.id}
        assert set(conn.execute(select(webhooks.c.job_id)).scalars()) == {other.id}


def test_a_job_that_has_not_ended_is_not_deleted(jobs: Jobs, store: VectorStore) -> None:
    job = submit(jobs, store, "a")
    with pytest.raises(ConflictError, match=f"job {job.id} is in_progress; cancel it first"):
        jobs.delete(job.id)
    assert jobs.get(job.id) == job
