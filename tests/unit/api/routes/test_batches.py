"""/v1/batches in this process; what becomes of a batch is tested with the runner."""

from collections.abc import Iterator
from typing import Any

import pytest

from semel.api import app as api_app
from semel.api.batch.wire import BatchObject
from semel.tasks.jobs.batches import Batch
from tests.support.answers import message_of
from tests.support.service import Service, service


class NoRunner:
    """In the place of the runner, so that a batch stays as it was created."""

    def __init__(self, services: object) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that accepts batches and never runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_app, "BatchRunner", NoRunner)
        with service(tmp_path_factory.mktemp("idle")) as running:
            yield running


def upload(api: Service, *, purpose: str = "batch") -> str:
    files = api.services.stores.files
    with files.writing() as target:
        target.write(b"{}\n")
        return files.add(target, purpose=purpose, filename="requests.jsonl").id


def create(api: Service, **options: Any) -> Any:
    body = {"input_file_id": upload(api), "endpoint": "/v1/embeddings", **options}
    return api.http.post("/v1/batches", json=body)


@pytest.mark.parametrize("endpoint", ["/v1/embeddings", "/v1/rerank"])
def test_a_new_batch_waits_for_validation_for_a_day(idle: Service, endpoint: str) -> None:
    batch = BatchObject.model_validate(create(idle, endpoint=endpoint, metadata={"who": "test"}).json())
    assert (batch.status, batch.endpoint, batch.metadata) == ("validating", endpoint, {"who": "test"})
    assert batch.expires_at == batch.created_at + 24 * 3600
    assert (batch.output_file_id, batch.errors, batch.request_counts.total) == (None, None, 0)


def test_a_batch_is_found_by_its_id(idle: Service) -> None:
    created = create(idle).json()
    assert idle.http.get(f"/v1/batches/{created['id']}").json() == created


def test_how_long_the_output_is_kept_is_stored(idle: Service) -> None:
    def stored(**options: Any) -> Batch:
        return idle.services.stores.batches.get(create(idle, **options).json()["id"])

    assert stored(output_expires_after={"anchor": "created_at", "seconds": 7200}).output_expires_s == 7200
    assert stored(output_expires_after=None).output_expires_s is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"endpoint": "/v1/chat/completions"},
            "endpoint must be one of /v1/embeddings, /v1/rerank, /classify, /embed_sparse, not '/v1/chat",
        ),
        ({"completion_window": "1h"}, "completion_window: "),
        ({"metadata": {str(i): "" for i in range(17)}}, "at most 16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "keys of 64"),
        ({"metadata": {"k": "v" * 513}}, "values of 512"),
        ({"metadata": {"k": 3}}, "metadata.k: "),
        ({"output_expires_after": {"anchor": "now", "seconds": 7200}}, "must be 'created_at'"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "3600 to 2592000"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": "soon"}}, "3600 to 2592000"),
    ],
)
def test_a_batch_with_a_wrong_option_is_refused(idle: Service, options: dict[str, Any], message: str) -> None:
    answer = create(idle, **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
    assert message in message_of(answer)


def test_metadata_up_to_the_limit_is_accepted(idle: Service) -> None:
    metadata = {f"{i:064}": "v" * 512 for i in range(16)}
    assert create(idle, metadata=metadata).json()["metadata"] == metadata


def test_an_input_file_must_exist_and_be_uploaded_for_batches(idle: Service) -> None:
    missing = create(idle, input_file_id="file-none")
    assert (missing.status_code, "there is no file 'file-none'" in message_of(missing)) == (404, True)
    output = create(idle, input_file_id=upload(idle, purpose="batch_output"))
    assert (output.status_code, "upload the input of a batch with purpose 'batch'" in message_of(output)) == (400, True)


def test_the_list_is_paged_and_begins_with_the_newest(idle: Service) -> None:
    ids = [create(idle).json()["id"] for _ in range(5)][::-1]
    first = idle.http.get("/v1/batches", params={"limit": 2}).json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (ids[:2], True)
    assert (first["first_id"], first["last_id"]) == tuple(ids[:2])
    second = idle.http.get("/v1/batches", params={"limit": 2, "after": first["last_id"]}).json()
    assert [batch["id"] for batch in second["data"]] == ids[2:4]


def test_the_last_page_has_no_more(idle: Service) -> None:
    oldest = create(idle).json()["id"]
    while page := idle.http.get("/v1/batches", params={"limit": 100, "after": oldest}).json():
        if not page["data"]:
            break
        oldest = page["last_id"]
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_a_batch_is_cancelled_once(idle: Service) -> None:
    path = f"/v1/batches/{create(idle).json()['id']}"
    cancelled = idle.http.post(f"{path}/cancel").json()
    assert cancelled["status"] == "cancelling"
    assert cancelled["cancelling_at"] is not None
    assert idle.http.get(path).json() == idle.http.post(f"{path}/cancel").json() == cancelled


def test_a_batch_that_has_ended_cannot_be_cancelled(idle: Service) -> None:
    batches, created = idle.services.stores.batches, create(idle).json()
    batches.lease(owner="test")
    batches.fail(created["id"], [], owner="test")
    answer = idle.http.post(f"/v1/batches/{created['id']}/cancel")
    assert (answer.status_code, "is failed and cannot be cancelled" in message_of(answer)) == (409, True)


@pytest.mark.parametrize("path", ["/v1/batches/none", "/v1/batches?after=none"])
def test_an_unknown_id_is_404(idle: Service, path: str) -> None:
    assert idle.http.get(path).status_code == 404
    assert idle.http.post("/v1/batches/none/cancel").status_code == 404
