"""Files: whole or absent, listed page by page, deleted when they expire, and a disk that is full."""

import errno
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import delete

from semel.db import Database
from semel.errors import BadInputError, ConflictError, NotFoundError, StorageFullError
from semel.tasks.jobs.batches import BatchStore
from semel.tasks.jobs.files import FileStore, StoredFile
from semel.tasks.jobs.schema import files as file_table
from tests.support.job_rows import all_pages, change


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def files(db: Database, folder: Path) -> FileStore:
    return FileStore(db, folder, retention_s=600, database_id="d")


def put(files: FileStore, content: bytes = b"content", **options: object) -> StoredFile:
    with files.writing() as file:
        file.write(content)
        return files.add(file, **{"purpose": "batch", "filename": "f.jsonl", **options})  # type: ignore[arg-type]


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds, time.time() - seconds))


# Writing


def test_a_stored_file_has_its_content_and_its_size(files: FileStore, folder: Path) -> None:
    before = time.time()
    stored = put(files, b"12345")
    assert files.path(stored.id).read_bytes() == b"12345"
    assert (stored.bytes, stored.purpose, stored.filename) == (5, "batch", "f.jsonl")
    assert stored.created_at >= before
    assert stored.expires_at == pytest.approx(stored.created_at + 600)
    assert files.get(stored.id) == stored
    assert [path.name for path in folder.iterdir()] == [stored.id]


def test_a_file_may_have_an_expiry_of_its_own(files: FileStore) -> None:
    stored = put(files, expires_s=5)
    assert stored.expires_at == pytest.approx(stored.created_at + 5)


def test_a_name_that_is_too_long_for_the_database_is_cut(files: FileStore) -> None:
    stored = put(files, filename="x" * 500)
    assert files.get(stored.id).filename == "x" * 300


def test_a_file_that_is_not_added_is_deleted(files: FileStore, folder: Path) -> None:
    with files.writing(suffix=".part") as file:
        file.write(b"content")
        assert [path.suffix for path in folder.iterdir()] == [".part"]
    assert list(folder.iterdir()) == []


def test_an_error_while_a_file_is_written_deletes_it_and_passes_through(files: FileStore, folder: Path) -> None:
    with pytest.raises(RuntimeError, match="cut off"), files.writing():
        raise RuntimeError("cut off")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_as_full_storage(files: FileStore, folder: Path, code: int) -> None:
    with pytest.raises(StorageFullError, match=str(folder)), files.writing():
        raise OSError(code, os.strerror(code))
    assert list(folder.iterdir()) == []


def test_another_error_of_the_disk_passes_through(files: FileStore) -> None:
    with pytest.raises(PermissionError), files.writing():
        raise PermissionError(errno.EACCES, "not allowed")


# Reading


def test_an_unknown_file_is_not_found(files: FileStore) -> None:
    for method in (files.get, files.delete):
        with pytest.raises(NotFoundError, match="no file 'file-nope'"):
            method("file-nope")
    with pytest.raises(NotFoundError):
        files.list_files(limit=1, after="file-nope")


def test_files_are_listed_in_either_order_and_by_purpose(files: FileStore) -> None:
    first, second, third = put(files), put(files, purpose="batch_output"), put(files)
    assert files.list_files(limit=9) == [third, second, first]
    assert files.list_files(limit=9, ascending=True) == [first, second, third]
    assert files.list_files(limit=9, purpose="batch") == [third, first]
    assert files.list_files(limit=9, purpose="nope") == []


@pytest.mark.parametrize("ascending", [True, False])
def test_files_of_the_same_moment_are_each_listed_once(files: FileStore, db: Database, ascending: bool) -> None:
    made = {put(files).id for _ in range(5)}
    change(db, file_table, created_at=1000.0)
    listed = all_pages(lambda last: files.list_files(limit=2, after=last and last.id, ascending=ascending))
    assert len(listed) == 5
    assert {file.id for file in listed} == made


# Deleting


def test_a_deleted_file_is_gone_with_its_content(files: FileStore, folder: Path) -> None:
    stored, other = put(files), put(files)
    files.delete(stored.id)
    with pytest.raises(NotFoundError):
        files.get(stored.id)
    assert [path.name for path in folder.iterdir()] == [other.id]


def test_a_file_without_content_can_be_deleted(files: FileStore) -> None:
    stored = put(files)
    files.path(stored.id).unlink()
    files.delete(stored.id)
    assert files.list_files(limit=9) == []


def test_a_file_is_kept_while_a_batch_reads_it(files: FileStore, db: Database) -> None:
    stored, batches = put(files), BatchStore(db)
    batch = batches.create(
        endpoint="/v1/embeddings", input_file_id=stored.id, completion_window="24h", window_s=60, metadata={},
        output_expires_s=None,
    )  # fmt: skip
    with pytest.raises(ConflictError, match=f"batch {batch.id} still reads file {stored.id}; cancel it first"):
        files.delete(stored.id)
    assert files.path(stored.id).exists()


# The sweep


def test_a_sweep_deletes_expired_files_only(files: FileStore, folder: Path) -> None:
    kept = put(files)
    put(files, expires_s=-1)
    put(files, expires_s=-1)
    assert files.sweep() == 2
    assert [path.name for path in folder.iterdir()] == [kept.id]
    assert files.list_files(limit=9) == [kept]


def test_a_sweep_before_the_first_file_finds_nothing(files: FileStore, folder: Path) -> None:
    assert files.sweep() == 0
    assert not folder.exists()


def test_a_sweep_deletes_old_content_without_a_row(files: FileStore, db: Database) -> None:
    old, fresh = put(files), put(files)
    with db.write() as conn:
        conn.execute(delete(file_table))
    age(files.path(old.id), 7200)
    assert files.sweep() == 0, "only expired files are counted"
    assert not files.path(old.id).exists()
    assert files.path(fresh.id).exists(), "it may be a file whose row is being written"


def test_a_sweep_leaves_old_content_with_a_row(files: FileStore) -> None:
    stored = put(files)
    age(files.path(stored.id), 7200)
    files.sweep()
    assert files.path(stored.id).exists()


def test_an_expired_file_that_another_process_deletes_first_is_not_counted(
    files: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = put(files, expires_s=-1), put(files, expires_s=-1)
    delete_one = files.delete

    def outrun(file_id: str) -> None:
        if file_id == first.id:
            delete_one(file_id)  # the other process
        delete_one(file_id)

    monkeypatch.setattr(files, "delete", outrun)
    assert files.sweep() == 1
    assert not files.path(second.id).exists()


def test_a_folder_belongs_to_one_database(db: Database, folder: Path) -> None:
    """Another database knows none of the files, so its sweep would delete them all."""
    FileStore(db, folder, retention_s=600, database_id="one")
    FileStore(db, folder, retention_s=600, database_id="one")
    with pytest.raises(BadInputError, match="files of another database than SEMEL_DATABASE_URL names"):
        FileStore(db, folder, retention_s=600, database_id="other")
