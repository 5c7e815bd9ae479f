"""/v1/files in this process."""

from typing import Any

import pytest

from semel.api.batch.wire import FileObject
from tests.support.answers import message_of
from tests.support.service import Service


def upload(api: Service, content: bytes = b"{}\n", name: str = "requests.jsonl", **fields: str) -> Any:
    return api.http.post("/v1/files", data={"purpose": "batch", **fields}, files={"file": (name, content)})


def test_a_file_comes_back_byte_for_byte(api: Service) -> None:
    content = bytes(range(256)) * 500
    stored = FileObject.model_validate(upload(api, content, "näme.jsonl").json())
    assert (stored.bytes, stored.filename, stored.purpose, stored.status) == (
        128_000, "näme.jsonl", "batch", "processed",
    )  # fmt: skip
    answer = api.http.get(f"/v1/files/{stored.id}/content")
    assert (answer.content, answer.headers["content-type"]) == (content, "application/octet-stream")
    assert "attachment" in answer.headers["content-disposition"]


def test_a_file_is_found_by_its_id(api: Service) -> None:
    stored = upload(api).json()
    assert api.http.get(f"/v1/files/{stored['id']}").json() == stored


def test_a_file_expires_when_its_upload_says(api: Service) -> None:
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
    stored = upload(api, **fields).json()
    assert stored["expires_at"] - stored["created_at"] == pytest.approx(7200, abs=1)
    default = upload(api).json()
    assert default["expires_at"] - default["created_at"] == pytest.approx(30 * 86400, abs=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"purpose": "fine-tune"}, "purpose must be 'batch', the only use that semel has for files, not 'fine-tune'"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "7200"}, "must be 'created_at'"),
        ({"expires_after[anchor]": "created_at"}, "3600 to 2592000"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "3600 to 2592000"),
    ],
)
def test_an_upload_with_a_wrong_field_is_refused(api: Service, fields: dict[str, str], message: str) -> None:
    answer = upload(api, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
    assert message in message_of(answer)


def test_a_refused_upload_leaves_nothing_behind(api: Service) -> None:
    upload(api, purpose="fine-tune")
    assert list((api.services.settings.home / "files").glob("part-*")) == []


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"data": {"purpose": "batch"}, "files": {"other": b"x"}}, "the form has no file"),
        ({"content": b"{}"}, "multipart/form-data"),
        ({"content": b"{}", "headers": {"content-type": "multipart/form-data"}}, "multipart/form-data"),
        ({"content": b"{}", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "multipart/form-data"),
    ],
)
def test_a_body_that_is_no_form_with_a_file_is_refused(api: Service, sent: dict[str, Any], message: str) -> None:
    answer = api.http.post("/v1/files", **sent)
    assert answer.status_code == 400
    assert message in message_of(answer)


def test_the_list_is_paged_in_both_orders(api: Service) -> None:
    ids = [upload(api).json()["id"] for _ in range(4)]
    newest = api.http.get("/v1/files", params={"limit": 3}).json()
    assert ([stored["id"] for stored in newest["data"]], newest["has_more"]) == (ids[:0:-1], True)
    assert (newest["first_id"], newest["last_id"]) == (ids[3], ids[1])
    rest = api.http.get("/v1/files", params={"order": "asc", "after": ids[2]}).json()
    assert ([stored["id"] for stored in rest["data"]], rest["has_more"]) == ([ids[3]], False)


def test_the_list_is_filtered_by_purpose(api: Service) -> None:
    upload(api)
    listed = api.http.get("/v1/files", params={"purpose": "batch"}).json()["data"]
    assert {stored["purpose"] for stored in listed} == {"batch"}
    nothing = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert api.http.get("/v1/files", params={"purpose": "vision"}).json() == nothing


def test_a_deleted_file_is_gone_with_its_content(api: Service) -> None:
    stored = upload(api).json()
    path = api.services.stores.files.path(stored["id"])
    assert path.exists()
    deleted = api.http.delete(f"/v1/files/{stored['id']}").json()
    assert deleted == {"id": stored["id"], "object": "file", "deleted": True}
    assert not path.exists()


def test_a_file_that_an_open_batch_reads_is_not_deleted(api: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.services.stores.batches, "lease", lambda *, owner: [])  # the runner would end it
    stored = upload(api).json()
    batch = api.services.stores.batches.create(
        endpoint="/v1/embeddings",
        input_file_id=stored["id"],
        completion_window="24h",
        window_s=60,
        metadata={},
        output_expires_s=None,
    )
    answer = api.http.delete(f"/v1/files/{stored['id']}")
    assert (answer.status_code, f"batch {batch.id} still reads" in message_of(answer)) == (409, True)


def test_content_that_was_deleted_by_hand_is_a_conflict(api: Service) -> None:
    stored = upload(api).json()
    api.services.stores.files.path(stored["id"]).unlink()
    answer = api.http.get(f"/v1/files/{stored['id']}/content")
    assert (answer.status_code, "was it deleted by hand?" in message_of(answer)) == (409, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/files/x"), ("GET", "/v1/files/x/content"), ("DELETE", "/v1/files/x"), ("GET", "/v1/files?after=x")],
)
def test_an_unknown_id_is_404(api: Service, method: str, path: str) -> None:
    answer = api.http.request(method, path)
    assert (answer.status_code, "there is no file 'x'" in message_of(answer)) == (404, True)
