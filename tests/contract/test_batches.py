"""What the stores of files and batches promise, on SQLite and on PostgreSQL."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from semel.db import Database
from semel.errors import ConflictError, NotFoundError
from semel.tasks.jobs.batches import Batch, BatchStore, LineError
from semel.tasks.jobs.files import FileStore, StoredFile
from semel.tasks.jobs.schema import batches
from semel.values.job import JobStatus


@pytest.fixture
def files(db: Database, tmp_path: Path) -> FileStore:
    return FileStore(db, tmp_path / "files", retention_s=60, database_id="d")


@pytest.fixture
def store(db: Database) -> BatchStore:
    return BatchStore(db)


def put(files: FileStore, content: bytes, **options: float) -> StoredFile:
    with files.writing() as file:
        file.write(content)
        return files.add(file, purpose="batch", filename="f.jsonl", **options)


def new(store: BatchStore, file_id: str = "file-1") -> Batch:
    return store.create(
        endpoint="/v1/embeddings",
        input_file_id=file_id,
        completion_window="24h",
        window_s=60,
        metadata={"k": "v"},
        output_expires_s=None,
    )


def lose_leases(db: Database) -> None:
    with db.write() as conn:
        conn.execute(update(batches).values(lease_until=time.time() - 1))


# Files


def test_a_file_is_stored_whole_or_not_at_all(files: FileStore, tmp_path: Path) -> None:
    stored = put(files, b"content")
    assert files.path(stored.id).read_bytes() == b"content"
    assert files.get(stored.id) == stored
    with files.writing() as file:
        file.write(b"half, and never added")
    assert [path.name for path in (tmp_path / "files").iterdir()] == [stored.id]


def test_the_sweep_deletes_expired_files_and_the_remains_of_a_crash(files: FileStore, tmp_path: Path) -> None:
    kept, old = put(files, b"a"), put(files, b"b", expires_s=-1)
    orphan, fresh = tmp_path / "files" / "part-orphan", tmp_path / "files" / "part-fresh"
    for path in (orphan, fresh):
        path.write_bytes(b"c")
    long_ago = time.time() - 7200
    os.utime(orphan, (long_ago, long_ago))
    os.utime(files.path(kept.id), (long_ago, long_ago))
    (tmp_path / "files" / "lost+found").mkdir()
    os.utime(tmp_path / "files" / "lost+found", (long_ago, long_ago))
    assert files.sweep() == 1
    assert {path.name for path in (tmp_path / "files").iterdir()} == {kept.id, "part-fresh", "lost+found"}
    with pytest.raises(NotFoundError):
        files.get(old.id)
    assert files.sweep() == 0


def test_a_file_that_an_open_batch_reads_stays(files: FileStore, store: BatchStore) -> None:
    read = put(files, b"a", expires_s=-1)
    batch = new(store, read.id)
    with pytest.raises(ConflictError, match=f"{batch.id} still reads"):
        files.delete(read.id)
    assert files.sweep() == 0
    store.lease(owner="a")
    store.fail(batch.id, [], owner="a")
    assert files.sweep() == 1


# Batches


def test_one_process_at_a_time_works_on_a_batch(db: Database, store: BatchStore) -> None:
    batch = new(store)
    assert [found.id for found in store.lease(owner="a")] == [batch.id]
    assert store.lease(owner="b") == []
    assert [found.id for found in store.lease(owner="a")] == [batch.id], "its own lease is renewed"
    assert not store.fail(batch.id, [], owner="b")
    lose_leases(db)
    assert [found.id for found in store.lease(owner="b")] == [batch.id]
    assert not store.renew(batch.id, owner="a")
    assert not store.start(batch.id, model="m", total=1, inputs=1, jobs=[], owner="a")
    store.give_back(owner="b")
    assert [found.id for found in store.lease(owner="a")] == [batch.id]


def test_a_batch_goes_from_validating_to_completed(store: BatchStore) -> None:
    batch = new(store)
    store.lease(owner="a")
    assert store.start(batch.id, model="m", total=2, inputs=3, jobs=["job_1"], owner="a")
    assert store.progress(batch.id, completed=1, failed=0, owner="a")
    assert store.finalize(batch.id, owner="a")
    with pytest.raises(ConflictError, match="finalizing"):
        store.cancel(batch.id)
    results: dict[str, Any] = {"completed": 1, "failed": 1, "input_tokens": 7, "cached_tokens": 3}
    results["output_file_id"] = "file-2"
    assert store.end(batch.id, JobStatus.COMPLETED, owner="a", **results)
    done = store.get(batch.id)
    assert {name: getattr(done, name) for name in results} == results
    assert (done.status, done.jobs, done.total, done.inputs) == (JobStatus.COMPLETED, ("job_1",), 2, 3)
    assert done.created_at <= (done.in_progress_at or 0) <= (done.finalizing_at or 0) <= (done.completed_at or 0)
    assert store.lease(owner="a") == []
    assert not store.end(batch.id, JobStatus.FAILED, owner="a"), "a batch ends once"


def test_line_errors_are_read_back_as_they_were_stored(store: BatchStore) -> None:
    batch, errors = new(store), [LineError("code", "message", line=3, param="body")]
    store.lease(owner="a")
    assert store.fail(batch.id, errors, owner="a")
    assert store.get(batch.id).errors == tuple(errors)
    with pytest.raises(ConflictError, match="failed"):
        store.cancel(batch.id)


def test_a_cancelled_batch_does_not_start(store: BatchStore) -> None:
    batch = new(store)
    store.lease(owner="a")
    assert store.cancel(batch.id).status is JobStatus.CANCELLING
    assert store.cancel(batch.id).status is JobStatus.CANCELLING, "cancelling twice changes nothing"
    assert not store.start(batch.id, model="m", total=1, inputs=1, jobs=[], owner="a")
    assert store.end(batch.id, JobStatus.CANCELLED, owner="a")


def test_a_batch_that_was_cancelled_during_validation_does_not_fail(store: BatchStore) -> None:
    batch = new(store)
    assert store.lease(owner="a")
    store.cancel(batch.id)
    assert not store.refuse(batch.id, [LineError("invalid_json_line", "no JSON", line=3)], owner="a")
    assert store.get(batch.id).status is JobStatus.CANCELLING


def test_batches_that_ended_long_ago_are_deleted_and_open_ones_stay(db: Database, store: BatchStore) -> None:
    ended, late, still_open = new(store), new(store), new(store)
    store.lease(owner="a")
    for batch in (ended, late):
        store.fail(batch.id, [], owner="a")
    with db.write() as conn:
        conn.exec_driver_sql("UPDATE batches SET created_at = 1")
        conn.exec_driver_sql(f"UPDATE batches SET failed_at = 1 WHERE id = '{ended.id}'")
    assert store.sweep(retention_s=60) == 1
    assert {batch.id for batch in store.list_batches(limit=9)} == {late.id, still_open.id}
