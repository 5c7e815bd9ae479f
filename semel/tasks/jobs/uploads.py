"""Files that arrive in parts: rows in the database, and the content of the parts in a folder of each upload."""

import hashlib
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import ColumnElement, delete, func, select, true, update

from semel.db import Database
from semel.errors import BadInputError, ConflictError, NotFoundError
from semel.private import private_folder
from semel.tasks.jobs.files import FileStore, StoredFile
from semel.tasks.jobs.schema import upload_parts, uploads
from semel.values.job import NOBODY, Submitter

LIFETIME_S = 3600.0
"""An upload that is not complete by then is deleted, as OpenAI defines it."""

MOST_PARTS = 10_000
"""Parts of one upload: a client that sends one byte at a time must not fill the folder."""


@dataclass(frozen=True)
class Upload:
    """A file that arrives in parts. Times are Unix seconds.

    Attributes:
        status: `pending`, `completed` or `cancelled`.
        bytes: those that the parts must have together.
        file_expires_s: how long the file is kept; None for the default.
        file_id: the file that it became.
    """

    id: str
    status: str
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float
    file_expires_s: float | None = None
    file_id: str | None = None
    namespace: str = ""
    owner: str = ""


class UploadStore:
    """Uploads by id.

    Args:
        files: get the files that are complete.
        folder: holds the contents of the parts, on the file system of the files; several API processes share it.
    """

    def __init__(self, db: Database, files: FileStore, folder: Path) -> None:
        self._visible: ColumnElement[bool] = true()
        self._db = db
        self._files = files
        self._folder = folder

    def within(self, namespace: str, files: FileStore) -> "UploadStore":
        """The same store for those for whom only the uploads of a namespace exist."""
        scoped = copy(self)
        scoped._visible, scoped._files = uploads.c.namespace == namespace, files
        return scoped

    def create(
        self, *, purpose: str, filename: str, size: int, file_expires_s: float | None, submitter: Submitter = NOBODY
    ) -> Upload:
        """Begin an upload of `size` bytes."""
        now = self._db.now()
        upload = Upload(
            id=f"upload_{uuid.uuid4().hex}",
            status="pending",
            purpose=purpose,
            filename=filename,
            bytes=size,
            created_at=now,
            expires_at=now + LIFETIME_S,
            file_expires_s=file_expires_s,
            namespace=submitter.namespace,
            owner=submitter.owner,
        )
        with self._db.write() as conn:
            conn.execute(uploads.insert().values(vars(upload)))
        return upload

    def pending(self, upload_id: str) -> Upload:
        """An upload that takes parts. Raises NotFoundError, or ConflictError if it has ended."""
        with self._db.read() as conn:
            row = conn.execute(select(uploads).where(uploads.c.id == upload_id, self._visible)).first()
        if row is None or (row.status == "pending" and row.expires_at < self._db.now()):
            raise NotFoundError("upload", upload_id)
        if row.status != "pending":
            raise ConflictError(f"upload {upload_id} is {row.status}")
        return Upload(**row._mapping)

    def add_part(self, upload: Upload, content: BinaryIO) -> tuple[str, float]:
        """Add a part; returns its id, and when it was added.

        Raises:
            BadInputError: the parts have more bytes than the upload, or are too many.
            ConflictError: the upload has ended meanwhile.
            StorageFullError: the disk or the database is full.
        """
        part_id = f"part_{uuid.uuid4().hex}"
        with self._files.writing() as target:
            shutil.copyfileobj(content, target, 1 << 20)
            target.flush()
            size, now = target.tell(), self._db.now()
            before = select(func.count(), func.coalesce(func.sum(upload_parts.c.bytes), 0)).where(
                upload_parts.c.upload_id == upload.id
            )
            is_pending = (uploads.c.id == upload.id) & (uploads.c.status == "pending")
            with self._db.write(reserve=True) as conn:
                if conn.execute(select(uploads.c.id).where(is_pending).with_for_update()).first() is None:
                    raise ConflictError(f"upload {upload.id} has ended meanwhile")
                count, held = conn.execute(before).one()
                if count >= MOST_PARTS:
                    raise BadInputError(f"upload {upload.id} has {MOST_PARTS} parts; send larger ones")
                if held + size > upload.bytes:
                    raise BadInputError(
                        f"the parts of upload {upload.id} have {held + size} bytes, more than the {upload.bytes} that "
                        "it was created with"
                    )
                row = {"id": part_id, "upload_id": upload.id, "bytes": size, "created_at": now}
                conn.execute(upload_parts.insert().values(row))
                folder = self._folder / upload.id
                private_folder(self._folder)
                private_folder(folder)
                Path(target.name).replace(folder / part_id)
        return part_id, now

    def complete(self, upload: Upload, part_ids: Sequence[str], *, md5: str | None = None) -> tuple[Upload, StoredFile]:
        """Make a file of the parts, in this order; parts that are not named are dropped.

        Raises:
            BadInputError: a part is unknown or named twice, or the bytes are not those that were announced.
            ConflictError: the upload has ended meanwhile.
            StorageFullError: the disk or the database is full.
        """
        self._check_parts(upload, part_ids)
        digest = hashlib.md5(usedforsecurity=False)
        with self._files.writing() as target:
            for block in self._blocks(upload, part_ids):
                digest.update(block)
                target.write(block)
            if md5 is not None and digest.hexdigest() != md5.lower():
                raise BadInputError(f"the parts have the MD5 checksum {digest.hexdigest()}, not {md5}")
            stored = self._files.add(
                target,
                purpose=upload.purpose,
                filename=upload.filename,
                expires_s=upload.file_expires_s,
                submitter=Submitter(upload.owner, namespace=upload.namespace),
            )
        try:
            ended = self._end(upload, "completed", file_id=stored.id)
        except ConflictError:
            self._files.delete(stored.id)
            raise
        return ended, stored

    def _blocks(self, upload: Upload, part_ids: Sequence[str]) -> Iterator[bytes]:
        """The content of parts, in order. Raises ConflictError if the upload ends meanwhile."""
        for part_id in part_ids:
            try:
                part = (self._folder / upload.id / part_id).open("rb")
            except FileNotFoundError:
                raise ConflictError(f"upload {upload.id} has ended meanwhile") from None
            with part:
                while block := part.read(1 << 20):
                    yield block

    def _check_parts(self, upload: Upload, part_ids: Sequence[str]) -> None:
        query = select(upload_parts.c.id, upload_parts.c.bytes).where(upload_parts.c.upload_id == upload.id)
        with self._db.read() as conn:
            sizes: dict[str, int] = {row.id: row.bytes for row in conn.execute(query)}
        if unknown := next((part for part in part_ids if part not in sizes), None):
            raise BadInputError(f"upload {upload.id} has no part {unknown!r}")
        if len(set(part_ids)) != len(part_ids):
            raise BadInputError("part_ids names a part twice")
        total = sum(sizes[part] for part in part_ids)
        if total != upload.bytes:
            raise BadInputError(f"the parts have {total} bytes, and upload {upload.id} was created with {upload.bytes}")

    def cancel(self, upload: Upload) -> Upload:
        """End an upload and drop its parts. Raises ConflictError if it has ended meanwhile."""
        return self._end(upload, "cancelled")

    def _end(self, upload: Upload, status: str, *, file_id: str | None = None) -> Upload:
        here = (uploads.c.id == upload.id) & (uploads.c.status == "pending")
        with self._db.write(reserve=True) as conn:
            changed = update(uploads).where(here).values(status=status, file_id=file_id).returning(*uploads.c)
            row = conn.execute(changed).first()
            if row is not None:
                conn.execute(delete(upload_parts).where(upload_parts.c.upload_id == upload.id))
        if row is None:
            raise ConflictError(f"upload {upload.id} has ended meanwhile")
        shutil.rmtree(self._folder / upload.id, ignore_errors=True)
        return Upload(**row._mapping)

    def sweep(self) -> None:
        """Delete the uploads whose time is over, and the parts that a crash left behind."""
        is_over = uploads.c.expires_at < self._db.now()
        with self._db.write(reserve=True) as conn:
            gone = list(conn.execute(delete(uploads).where(is_over).returning(uploads.c.id)).scalars())
            conn.execute(delete(upload_parts).where(upload_parts.c.upload_id.in_(gone)))
            known = set(conn.execute(select(uploads.c.id).where(uploads.c.status == "pending")).scalars())
        for folder in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(OSError):  # another process may have deleted it
                if folder.name not in known and folder.stat().st_mtime < time.time() - LIFETIME_S:
                    shutil.rmtree(folder)
