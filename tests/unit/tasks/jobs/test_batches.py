"""Batches: who may change them, which states may follow each other, and how they are listed."""

import time
from typing import Any

import pytest

from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.batches import Batch, BatchStore, LineError
from semel.tasks.jobs.schema import batches as batch_table
from semel.values.job import ENDED, JobStatus
from tests.support.job_rows import all_pages, change

ERROR = LineError("invalid_json_line", "is no JSON", line=3, param="body")


@pytest.fixture
def store(db: Database) -> BatchStore:
    return BatchStore(db)


def create(store: BatchStore, **changed: Any) -> Batch:
    options: dict[str, Any] = {
        "endpoint": "/v1/embeddings", "input_file_id": "file-1", "completion_window": "24h", "window_s": 60,
        "metadata": {}, "output_expires_s": None,
    }  # fmt: skip
    return store.create(**{**options, **changed})


def leased(store: BatchStore, owner: str = "a") -> Batch:
    """A new batch with a lease of this owner."""
    batch = create(store)
    store.lease(owner=owner)
    return batch


def start(store: BatchStore, batch: Batch, owner: str = "a") -> bool:
    return store.start(batch.id, model="m", total=2, inputs=3, jobs=["job_1", "job_2"], owner=owner)


def expire_leases(db: Database) -> None:
    change(db, batch_table, lease_until=time.time() - 1)


# Creating and listing


def test_a_new_batch_has_what_it_was_created_with(store: BatchStore) -> None:
    batch = create(store, metadata={"k": "v"}, output_expires_s=5.0, endpoint="/v1/rerank")
    assert batch.id.startswith("batch_")
    assert (batch.status, batch.endpoint, batch.input_file_id) == (JobStatus.VALIDATING, "/v1/rerank", "file-1")
    assert (batch.metadata, batch.output_expires_s, batch.completion_window) == ({"k": "v"}, 5.0, "24h")
    assert batch.expires_at == pytest.approx(batch.created_at + 60)
    assert (batch.total, batch.completed, batch.failed, batch.jobs, batch.errors) == (0, 0, 0, (), ())
    assert store.get(batch.id) == batch


def test_an_unknown_batch_is_not_found(store: BatchStore) -> None:
    for method in (store.get, store.cancel):
        with pytest.raises(NotFoundError, match="no batch 'batch_nope'"):
            method("batch_nope")
    with pytest.raises(NotFoundError):
        store.list_batches(limit=1, after="batch_nope")
    assert not store.renew("batch_nope", owner="a")


def test_batches_are_listed_newest_first_page_by_page(store: BatchStore) -> None:
    made = [create(store).id for _ in range(5)]
    first = [batch.id for batch in store.list_batches(limit=2)]
    rest = [batch.id for batch in store.list_batches(limit=9, after=first[-1])]
    assert first + rest == made[::-1]


def test_batches_of_the_same_moment_are_each_listed_once(store: BatchStore, db: Database) -> None:
    made = {create(store).id for _ in range(5)}
    change(db, batch_table, created_at=1000.0)
    listed = all_pages(lambda last: store.list_batches(limit=2, after=last and last.id))
    assert len(listed) == 5
    assert {batch.id for batch in listed} == made


# Leases


def test_leased_batches_come_the_oldest_first(store: BatchStore) -> None:
    made = [create(store).id for _ in range(3)]
    assert [batch.id for batch in store.lease(owner="a")] == made


def test_only_open_batches_are_leased(store: BatchStore) -> None:
    ended, running = leased(store), leased(store)
    store.fail(ended.id, [], owner="a")
    assert [batch.id for batch in store.lease(owner="a")] == [running.id]


def test_a_lease_that_ran_out_may_be_renewed_until_another_owner_takes_it(store: BatchStore, db: Database) -> None:
    batch = leased(store)
    expire_leases(db)
    assert store.renew(batch.id, owner="a")
    assert store.lease(owner="b") == []
    expire_leases(db)
    assert [found.id for found in store.lease(owner="b")] == [batch.id]
    assert not store.renew(batch.id, owner="a")


def test_an_owner_that_stops_leaves_its_batches_to_others_and_theirs_to_them(store: BatchStore) -> None:
    own, other = leased(store, "a"), leased(store, "b")
    store.give_back(owner="a")
    assert {batch.id for batch in store.lease(owner="c")} == {own.id}
    assert store.renew(other.id, owner="b")


def test_without_its_lease_a_process_changes_nothing(store: BatchStore) -> None:
    batch = leased(store, "a")
    before = store.get(batch.id)
    assert not start(store, batch, owner="b")
    assert not store.progress(batch.id, completed=1, failed=0, owner="b")
    assert not store.finalize(batch.id, owner="b")
    assert not store.fail(batch.id, [ERROR], owner="b")
    assert not store.refuse(batch.id, [ERROR], owner="b")
    assert not store.end(batch.id, JobStatus.COMPLETED, owner="b")
    assert store.get(batch.id) == before


# States


def test_a_started_batch_has_its_jobs_and_sizes(store: BatchStore) -> None:
    batch = leased(store)
    assert start(store, batch)
    started = store.get(batch.id)
    assert (started.status, started.model, started.jobs) == (JobStatus.IN_PROGRESS, "m", ("job_1", "job_2"))
    assert (started.total, started.inputs) == (2, 3)
    assert started.in_progress_at is not None


def test_a_batch_is_started_once(store: BatchStore) -> None:
    batch = leased(store)
    assert start(store, batch)
    assert not start(store, batch)
    assert not store.refuse(batch.id, [ERROR], owner="a"), "its lines were valid"


def test_progress_is_recorded_as_it_is_reported(store: BatchStore) -> None:
    batch = leased(store)
    start(store, batch)
    assert store.progress(batch.id, completed=1, failed=1, owner="a")
    assert (store.get(batch.id).completed, store.get(batch.id).failed) == (1, 1)


def test_only_a_batch_in_progress_is_finalized(store: BatchStore) -> None:
    batch = leased(store)
    assert not store.finalize(batch.id, owner="a")
    start(store, batch)
    assert store.finalize(batch.id, owner="a")
    assert store.get(batch.id).finalizing_at is not None


def test_a_refused_batch_has_failed_with_the_errors_of_its_lines(store: BatchStore) -> None:
    batch = leased(store)
    whole = LineError("empty_file", "the file has no lines")
    assert store.refuse(batch.id, [ERROR, whole], owner="a")
    failed = store.get(batch.id)
    assert (failed.status, failed.errors) == (JobStatus.FAILED, (ERROR, whole))
    assert failed.failed_at is not None


@pytest.mark.parametrize("status", ENDED)
def test_each_end_has_its_time_its_files_and_its_counts(store: BatchStore, status: JobStatus) -> None:
    batch = leased(store)
    start(store, batch)
    results: dict[str, Any] = {
        "completed": 1, "failed": 1, "input_tokens": 7, "cached_tokens": 3, "output_file_id": "file-2",
        "error_file_id": "file-3",
    }  # fmt: skip
    assert store.end(batch.id, status, owner="a", **results)
    ended = store.get(batch.id)
    assert ended.status is status
    assert getattr(ended, f"{status.value}_at") is not None
    assert {name: getattr(ended, name) for name in results} == results
    assert store.lease(owner="a") == []


# Cancelling


@pytest.mark.parametrize("running", [False, True], ids=["validating", "in progress"])
def test_a_batch_is_cancelled_while_its_work_goes_on(store: BatchStore, running: bool) -> None:
    batch = leased(store)
    if running:
        start(store, batch)
    cancelling = store.cancel(batch.id)
    assert cancelling.status is JobStatus.CANCELLING
    assert cancelling.cancelling_at is not None
    assert not store.finalize(batch.id, owner="a")
    assert store.end(batch.id, JobStatus.CANCELLED, owner="a", completed=1)
    assert store.cancel(batch.id).status is JobStatus.CANCELLED, "cancelling again does no harm"


def test_a_batch_is_not_cancelled_while_its_output_is_written(store: BatchStore) -> None:
    batch = leased(store)
    start(store, batch)
    store.finalize(batch.id, owner="a")
    with pytest.raises(ConflictError, match=f"batch {batch.id} is finalizing and cannot be cancelled"):
        store.cancel(batch.id)
    assert store.end(batch.id, JobStatus.COMPLETED, owner="a")


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.EXPIRED])
def test_an_ended_batch_is_not_cancelled(store: BatchStore, status: JobStatus) -> None:
    batch = leased(store)
    store.end(batch.id, status, owner="a")
    with pytest.raises(ConflictError, match=f"is {status.value} and"):
        store.cancel(batch.id)
    assert store.get(batch.id).cancelling_at is None
