"""Uploaded files and output files: a row in the database, and the content in a folder next to it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, delete, select, true, tuple_

from semel.db import Database
from semel.errors import BadInputError, ConflictError, NotFoundError, StorageFullError
from semel.private import NO_ROOM, private_folder
from semel.tasks.jobs.schema import batches, files
from semel.values.job import NOBODY, OPEN, Submitter

_ORPHAN_S = 3600.0
"""Content without a row that is older than this was left behind by a crash: every write takes less time."""


@dataclass(frozen=True)
class StoredFile:
    """A file. Times are Unix seconds."""

    id: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float | None
    namespace: str = ""
    owner: str = ""


class FileStore:
    """Files by id.

    Args:
        folder: holds the contents; several API processes share it.
        retention_s: how long a file without its own expiry is kept.
        database_id: identifies the database.

    Raises:
        BadInputError: the folder belongs to another database.
    """

    def __init__(self, db: Database, folder: Path, *, retention_s: float, database_id: str) -> None:
        self._visible: ColumnElement[bool] = true()
        self._db = db
        self._folder = folder
        self._retention_s = retention_s
        self._check_folder(database_id)

    def within(self, namespace: str) -> "FileStore":
        """The same store for those for whom only the files of a namespace exist."""
        scoped = copy(self)
        scoped._visible = files.c.namespace == namespace
        return scoped

    def _check_folder(self, database_id: str) -> None:
        """Note which database this folder belongs to: a sweep deletes every file that its database does not know.

        Raises BadInputError if it belongs to another one.
        """
        mark = self._folder.with_name(f"{self._folder.name}.database")  # holds the identity of the database
        with suppress(OSError):  # the disk is full: the next start notes it
            private_folder(mark.parent)
            with suppress(FileExistsError), mark.open("x") as file:
                file.write(database_id)
        found = mark.read_text().strip() if mark.exists() else ""
        if found not in ("", database_id):
            raise BadInputError(
                f"{self._folder} holds the files of another database than SEMEL_DATABASE_URL names; set SEMEL_HOME to "
                "the folder of this database, or to a new one"
            )

    def path(self, file_id: str) -> Path:
        """The path of the content of a stored file."""
        return self._folder / file_id

    @contextmanager
    def writing(self, suffix: str = "") -> Iterator[BinaryIO]:
        """Open a new file for writing; the end of the block deletes it unless `add` has taken it.

        Args:
            suffix: ends the name of the file while it is written.

        Raises:
            StorageFullError: the disk is full.
        """
        private_folder(self._folder)
        path = self._folder / f"part-{uuid.uuid4().hex}{suffix}"
        try:
            with path.open("xb") as file:
                yield file
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise StorageFullError(str(self._folder)) from error
        finally:
            path.unlink(missing_ok=True)

    def add(
        self,
        written: BinaryIO,
        *,
        purpose: str,
        filename: str,
        expires_s: float | None = None,
        submitter: Submitter = NOBODY,
    ) -> StoredFile:
        """Keep a file that `writing` opened, under a new id.

        Args:
            expires_s: seconds from now until the file expires; None for the default.
            submitter: whose file it is.

        Raises:
            StorageFullError: the database is full.
        """
        written.flush()
        now = self._db.now()
        stored = StoredFile(
            id=f"file-{uuid.uuid4().hex}",
            purpose=purpose,
            filename=filename[:300],
            bytes=written.tell(),
            created_at=now,
            expires_at=now + (self._retention_s if expires_s is None else expires_s),
            namespace=submitter.namespace,
            owner=submitter.owner,
        )
        Path(written.name).replace(self.path(stored.id))  # before the row, so that no row lacks its content
        with self._db.write() as conn:
            conn.execute(files.insert().values(vars(stored)))
        return stored

    def get(self, file_id: str) -> StoredFile:
        """The file with this id. Raises NotFoundError."""
        with self._db.read() as conn:
            row = conn.execute(select(files).where(files.c.id == file_id, self._visible)).first()
        if row is None:
            raise NotFoundError("file", file_id)
        return StoredFile(**row._mapping)

    def list_files(
        self, *, limit: int, after: str | None = None, purpose: str | None = None, ascending: bool = False
    ) -> list[StoredFile]:
        """Files, the newest first, or the oldest first if `ascending`.

        Args:
            after: id of the last file on the previous page.
            purpose: list only files with this purpose.

        Raises:
            NotFoundError: `after` is no file.
        """
        place = tuple_(files.c.created_at, files.c.id)
        query = select(files).where(self._visible).limit(limit)
        query = query.order_by(*(column if ascending else column.desc() for column in (files.c.created_at, files.c.id)))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            last = self.get(after)
            last_place: Any = (last.created_at, last.id)
            query = query.where(place > last_place if ascending else place < last_place)
        with self._db.read() as conn:
            return [StoredFile(**row._mapping) for row in conn.execute(query)]

    def delete(self, file_id: str) -> None:
        """Delete a file.

        Raises:
            NotFoundError: there is no such file.
            ConflictError: a batch still reads it.
        """
        self.get(file_id)
        with self._db.write(reserve=True) as conn:
            reader = conn.execute(select(batches.c.id).where(_read_by_open_batches(file_id)).limit(1)).scalar()
            if reader is not None:
                raise ConflictError(f"batch {reader} still reads file {file_id}; cancel it first")
            deleted = conn.execute(delete(files).where(files.c.id == file_id).returning(files.c.id)).first()
        if deleted is None:
            raise NotFoundError("file", file_id)
        self.path(file_id).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Delete expired files, and old content without a row. Returns the number of expired files deleted."""
        now, deleted = self._db.now(), 0
        with self._db.read() as conn:
            expired = list(conn.execute(select(files.c.id).where(files.c.expires_at < now)).scalars())
        for file_id in expired:
            try:
                self.delete(file_id)
                deleted += 1
            except (NotFoundError, ConflictError):  # another process deleted it, or a batch still reads it
                continue
        if self._folder.is_dir():
            with self._db.read() as conn:
                known = set(conn.execute(select(files.c.id)).scalars())
            for path in self._folder.iterdir():
                with suppress(OSError):  # another process may have deleted it
                    if path.is_file() and path.name not in known and path.stat().st_mtime < now - _ORPHAN_S:
                        path.unlink()
        return deleted


def _read_by_open_batches(file_id: str) -> Any:
    return (batches.c.input_file_id == file_id) & batches.c.status.in_(OPEN)
