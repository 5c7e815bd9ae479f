"""API keys: when they were used, what they keep, and what they may keep."""

import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from semel.api.edge.keys import load_keys
from semel.errors import BadInputError
from semel.settings import Settings
from tests.support.answers import message_of
from tests.support.service import Service, service

ADMIN, SMALL, FREE = "the-admin", "the-small-one", "the-free-one"


def line(key: str, rest: str) -> str:
    return f"{sha256(key.encode()).hexdigest()} {rest}"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Service]:
    file = tmp_path / "keys"
    lines = [line(ADMIN, "admin name=boss"), line(SMALL, "submit name=small disk=0.02MB"), line(FREE, "submit")]
    file.write_text("\n".join(lines))
    with service(tmp_path, api_keys_file=file) as running:
        yield running


def call(api: Service, key: str, method: str, path: str, *, kind: str | None = None, **options: Any) -> Any:
    headers = {"authorization": f"Bearer {key}", **({"content-type": kind} if kind else {})}
    return api.http.request(method, path, headers=headers, **options)


def listed(api: Service) -> dict[str, Any]:
    answer = call(api, ADMIN, "GET", "/v1/keys")
    assert answer.status_code == 200, answer.text
    return {key["name"]: key for key in answer.json()["data"]}


def test_keys_are_listed_for_administrators_without_the_keys(api: Service) -> None:
    found = listed(api)
    free = f"key {sha256(FREE.encode()).hexdigest()[:8]}"
    assert set(found) == {"boss", "small", free}
    assert (found["boss"]["scope"], found["small"]["quota_bytes"], found[free]["quota_bytes"]) == (
        "admin",
        20_000,
        None,
    )
    assert call(api, SMALL, "GET", "/v1/keys").status_code == 403


def test_the_last_use_of_a_key_is_known_to_other_processes(api: Service) -> None:
    assert listed(api)["small"]["last_used_at"] is None
    call(api, SMALL, "GET", "/v1/jobs")
    used_at = listed(api)["small"]["last_used_at"]
    assert used_at == pytest.approx(time.time(), abs=5)
    store = api.services.stores.key_use
    store.write()
    assert not store._used
    assert listed(api)["small"]["last_used_at"] == used_at
    store._used[next(owner for owner, at in store.last().items() if at == used_at)] = used_at - 100
    store.write()
    assert listed(api)["small"]["last_used_at"] == used_at, "the time of another process is later"


def test_a_file_beyond_the_quota_is_refused_and_another_key_goes_on(api: Service) -> None:
    file = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"x" * 15_000)}}
    first = call(api, SMALL, "POST", "/v1/files", **file)
    assert first.status_code == 200
    refused = call(api, SMALL, "POST", "/v1/files", **file)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    assert (
        "keeps 15,000 bytes of files and texts of jobs, 15,000 more would be added, and it may keep 20,000"
        in message_of(refused)
    )
    assert listed(api)["small"]["kept_bytes"] == 15_000
    assert call(api, FREE, "POST", "/v1/files", **file).status_code == 200
    api.services.stores.disk_use._seen.clear()
    assert call(api, SMALL, "DELETE", f"/v1/files/{first.json()['id']}").status_code == 200
    assert call(api, SMALL, "POST", "/v1/files", **file).status_code == 200, "there is room again"


def test_uploads_in_parts_count_when_they_are_announced_and_when_they_arrive(api: Service) -> None:
    body = {"filename": "a", "purpose": "batch", "bytes": 30_000, "mime_type": "text/plain"}
    assert call(api, SMALL, "POST", "/v1/uploads", json=body).status_code == 403
    ids = []
    for _ in range(2):
        ids.append(call(api, SMALL, "POST", "/v1/uploads", json={**body, "bytes": 15_000}).json()["id"])
        api.services.stores.disk_use._seen.clear()
    statuses = []
    for upload_id in ids:
        part = {"files": {"data": ("p", b"x" * 15_000)}}
        statuses.append(call(api, SMALL, "POST", f"/v1/uploads/{upload_id}/parts", **part).status_code)
        api.services.stores.disk_use._seen.clear()
    assert statuses == [200, 403]


def test_an_upload_that_is_sent_at_once_is_counted_once(api: Service) -> None:
    body = {"filename": "a", "purpose": "batch", "bytes": 15_000, "mime_type": "text/plain"}
    upload_id = call(api, SMALL, "POST", "/v1/uploads", json=body).json()["id"]
    part = {"files": {"data": ("p", b"x" * 15_000)}}
    assert call(api, SMALL, "POST", f"/v1/uploads/{upload_id}/parts", **part).status_code == 200


def test_a_batch_whose_texts_would_not_fit_is_refused(api: Service) -> None:
    file = {"data": {"purpose": "batch"}, "files": {"file": ("a.jsonl", b"x" * 15_000)}}
    file_id = call(api, SMALL, "POST", "/v1/files", **file).json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    refused = call(api, SMALL, "POST", "/v1/batches", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")


def test_texts_of_jobs_count_while_they_are_kept_and_a_refused_job_leaves_none(api: Service) -> None:
    api.worker.paused = True
    texts = [f"{i} {sha256(str(i).encode()).hexdigest()}" for i in range(700)]  # which hardly compress
    first = call(api, SMALL, "POST", "/v1/jobs", json={"input": texts})
    assert first.status_code == 202
    assert listed(api)["small"]["kept_bytes"] > 20_000
    api.services.stores.disk_use._seen.clear()
    lines = "".join(f'{{"text": "more {text}"}}\n' for text in texts)
    for refused in (
        call(api, SMALL, "POST", "/v1/jobs?model=fake", content=lines.encode(), kind="application/x-ndjson"),
        call(api, SMALL, "POST", "/v1/jobs", json={"input": ["x"]}),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    listed_jobs = call(api, SMALL, "GET", "/v1/jobs").json()["data"]
    assert [job["id"] for job in listed_jobs] == [first.json()["id"]]
    assert call(api, FREE, "POST", "/v1/jobs", json={"input": ["x"]}).status_code == 202


def test_a_job_that_grows_beyond_the_quota_is_refused_and_deleted(api: Service) -> None:
    api.worker.paused = True
    calls: list[int] = []
    disk_use = api.services.stores.disk_use
    before = disk_use.bytes_of

    def bytes_of(owner: str) -> int:
        disk_use._seen.clear()
        calls.append(before(owner))
        return calls[-1]

    disk_use.bytes_of = bytes_of  # type: ignore[method-assign]  # read each time, not once in a second
    lines = "".join(f'{{"text": "{i} {sha256(str(i).encode()).hexdigest()}"}}\n' for i in range(20_000))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("semel.tasks.jobs.disk_use._KEPT_S", 0.0)
        refused = call(api, SMALL, "POST", "/v1/jobs?model=fake", content=lines.encode(), kind="application/x-ndjson")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    assert max(calls) > 20_000
    assert call(api, SMALL, "GET", "/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("option", ["disk=10", "disk=GB", "disk=-1GB", "disk=1e3MB"])
def test_a_quota_that_is_no_size_is_refused(tmp_path: Path, option: str) -> None:
    file = tmp_path / "keys"
    file.write_text(line("k", f"submit {option}"))
    with pytest.raises(BadInputError, match="'disk' is no option, or its value cannot be used"):
        load_keys(Settings(home=tmp_path, api_keys_file=file))
