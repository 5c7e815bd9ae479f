"""Files that arrive in parts: the file is the parts in their order, and nothing is left of what is not completed."""

import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from semel.errors import ConflictError
from semel.tasks.jobs.schema import uploads
from semel.tasks.jobs.uploads import LIFETIME_S
from tests.support.answers import message_of
from tests.support.service import Service, service


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    with service(tmp_path, max_file_bytes=1000) as running:
        yield running


def create(api: Service, size: int, **more: Any) -> str:
    body = {"filename": "lines.jsonl", "purpose": "batch", "bytes": size, "mime_type": "application/jsonl", **more}
    answer = api.http.post("/v1/uploads", json=body)
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert (made["object"], made["status"], made["bytes"], made["file"]) == ("upload", "pending", size, None)
    assert made["expires_at"] - made["created_at"] == LIFETIME_S
    return str(made["id"])


def add(api: Service, upload_id: str, data: bytes) -> str:
    answer = api.http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("part", data)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["upload_id"] == upload_id
    return str(answer.json()["id"])


def complete(api: Service, upload_id: str, *parts: str, **more: Any) -> Any:
    return api.http.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": list(parts), **more})


def folder(api: Service, upload_id: str) -> Path:
    return api.services.settings.home / "uploads" / upload_id


def test_the_file_is_the_parts_in_the_order_of_completion(api: Service) -> None:
    upload_id = create(api, 9)
    second, first, dropped = (add(api, upload_id, data) for data in (b"-two", b"first", b""))
    done = complete(api, upload_id, first, second, md5=hashlib.md5(b"first-two").hexdigest())
    assert (done.status_code, done.json()["status"], done.json()["file"]["bytes"]) == (200, "completed", 9)
    file_id = done.json()["file"]["id"]
    assert api.http.get(f"/v1/files/{file_id}/content").content == b"first-two"
    assert api.http.get(f"/v1/files/{file_id}").json()["filename"] == "lines.jsonl"
    assert dropped
    assert not folder(api, upload_id).exists()


def test_the_file_lives_as_long_as_was_asked(api: Service) -> None:
    upload_id = create(api, 1, expires_after={"anchor": "created_at", "seconds": 7200})
    stored = complete(api, upload_id, add(api, upload_id, b"x")).json()["file"]
    assert stored["expires_at"] - stored["created_at"] == 7200


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bytes": 1001}, "bytes is 1001, and a file may have 1000 (SEMEL_MAX_FILE_BYTES)"),
        ({"bytes": 0}, "bytes"),
        ({"purpose": "fine-tune"}, "purpose"),
        ({"expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after[seconds] must be 3600"),
        ({"strange": 1}, "strange"),
    ],
)
def test_an_upload_that_cannot_be_is_refused(api: Service, more: dict[str, Any], message: str) -> None:
    body = {"filename": "a", "purpose": "batch", "bytes": 1, "mime_type": "text/plain", **more}
    answer = api.http.post("/v1/uploads", json=body)
    assert (answer.status_code, message in message_of(answer)) == (400, True)


def test_more_bytes_than_announced_are_refused(api: Service) -> None:
    upload_id = create(api, 5)
    add(api, upload_id, b"four")
    answer = api.http.post(f"/v1/uploads/{upload_id}/parts", files={"data": ("part", b"xx")})
    assert (answer.status_code, "have 6 bytes, more than the 5" in message_of(answer)) == (400, True)
    answer = api.http.post(f"/v1/uploads/{upload_id}/parts", files={"other": ("part", b"x")})
    assert (answer.status_code, "data: the form has no file" in message_of(answer)) == (400, True)


def test_a_file_of_other_bytes_than_announced_is_not_made(api: Service) -> None:
    upload_id = create(api, 6)
    one, two = add(api, upload_id, b"abc"), add(api, upload_id, b"def")
    for parts, more, message in (
        ([one], {}, "the parts have 3 bytes"),
        ([one, one], {}, "names a part twice"),
        ([one, "part_none"], {}, "has no part 'part_none'"),
        ([one, two], {"md5": "0" * 32}, "have the MD5 checksum"),
    ):
        answer = complete(api, upload_id, *parts, **more)
        assert (answer.status_code, message in message_of(answer)) == (400, True)
    assert api.http.get("/v1/files").json()["data"] == []
    assert complete(api, upload_id, one, two).status_code == 200, "it can still be completed"


def test_an_upload_ends_once(api: Service) -> None:
    upload_id = create(api, 1)
    part = add(api, upload_id, b"x")
    pending = api.services.stores.uploads.pending(upload_id)
    cancelled = api.http.post(f"/v1/uploads/{upload_id}/cancel").json()
    assert (cancelled["status"], folder(api, upload_id).exists()) == ("cancelled", False)
    for path, options in (
        ("cancel", {}),
        ("complete", {"json": {"part_ids": [part]}}),
        ("parts", {"files": {"data": ("part", b"x")}}),
    ):
        assert api.http.post(f"/v1/uploads/{upload_id}/{path}", **options).status_code == 409
    with pytest.raises(ConflictError, match="has ended meanwhile"):
        api.services.stores.uploads.cancel(pending)
    with pytest.raises(ConflictError, match="has ended meanwhile"):
        api.services.stores.uploads.add_part(pending, io.BytesIO(b"x"))
    with pytest.raises(ConflictError, match="has ended meanwhile"):
        list(api.services.stores.uploads._blocks(pending, [part]))
    assert api.http.post("/v1/uploads/upload_none/cancel").status_code == 404


def test_what_is_not_completed_in_time_is_deleted(api: Service) -> None:
    store, kept, late = api.services.stores.uploads, create(api, 1), create(api, 1)
    for upload_id in (kept, late):
        add(api, upload_id, b"x")
    stray = folder(api, "upload_stray")
    stray.mkdir()
    old = time.time() - 2 * LIFETIME_S
    for path in (stray, folder(api, late)):
        os.utime(path, (old, old))
    with api.services.stores.db.write() as conn:
        conn.execute(update(uploads).where(uploads.c.id == late).values(expires_at=old))
    assert api.http.post(f"/v1/uploads/{late}/cancel").status_code == 404
    store.sweep()
    assert [folder(api, kept).exists(), folder(api, late).exists(), stray.exists()] == [True, False, False]
