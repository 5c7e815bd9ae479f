"""Namespaces: what belongs to one does not exist for keys of another, and a private cache teaches nobody anything."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from semel.api.edge.keys import file_line
from tests.support.processes import wait_until
from tests.support.service import Service, service

KEYS = {
    "red": ("sk-red", "submit", "namespace=red"),
    "red colleague": ("sk-red-2", "submit", "namespace=red"),
    "blue": ("sk-blue", "submit", "namespace=blue", "cache=private", "name=blue-team"),
    "green": ("sk-green", "submit", "namespace=green", "cache=private"),
    "plain": ("sk-plain", "submit"),
    "admin": ("sk-admin", "admin"),
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("tenants")
    file = folder / "keys"
    file.write_text("\n".join(file_line(key, scope, options) for key, scope, *options in KEYS.values()))
    with service(folder, api_keys_file=file) as running:
        yield running


def ask(api: Service, who: str, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEYS[who][0]}", **options.pop("headers", {})}
    answer: httpx.Response = api.http.request(method, path, headers=headers, **options)
    return answer


def submit(api: Service, who: str, *texts: str, **options: Any) -> str:
    answer = ask(api, who, "POST", "/v1/jobs", json={"input": list(texts)}, **options)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def cached(api: Service, who: str, text: str) -> int:
    """How many of one text the estimate finds in the cache: the question of a curious neighbour."""
    answer = ask(api, who, "POST", "/v1/jobs/estimate", json={"input": [text]})
    found: int = answer.json()["cached"]
    return found


def upload(api: Service, who: str, *lines: object) -> str:
    content = "\n".join(json.dumps(line) for line in lines)
    answer = ask(api, who, "POST", "/v1/files", data={"purpose": "batch"}, files={"file": content.encode()})
    file_id: str = answer.json()["id"]
    return file_id


BY_ID = [
    *(f"GET /v1/jobs/{{}}{part}" for part in ("", "/chunks", "/failed", "/results", "/events")),
    *(f"POST /v1/jobs/{{}}/{action}" for action in ("cancel", "retry")),
    "DELETE /v1/jobs/{}",
]


@pytest.mark.parametrize("route", BY_ID)
@pytest.mark.parametrize("many", [1, 40], ids=["small", "large"])
def test_a_job_of_another_namespace_does_not_exist(api: Service, route: str, many: int) -> None:
    job = submit(api, "red", *(f"a text of red {i}" for i in range(many)))
    method, path = route.format(job).split(" ")
    unknown = ask(api, "blue", method, path.replace(job, "job_none"))
    for stranger in ("blue", "plain"):
        answer = ask(api, stranger, method, path)
        assert (answer.status_code, answer.text) == (404, unknown.text.replace("job_none", job))
    assert ask(api, "red colleague", "GET", f"/v1/jobs/{job}").json()["status"] == "completed"
    assert ask(api, "admin", "GET", f"/v1/jobs/{job}").status_code == 200


def test_lists_show_the_own_namespace_and_an_administrator_sees_all(api: Service) -> None:
    jobs = {who: submit(api, who, f"listed for {who}") for who in ("red", "blue", "plain")}
    for who, job in jobs.items():
        listed = {each["id"] for each in ask(api, who, "GET", "/v1/jobs?limit=100").json()["data"]}
        assert listed & set(jobs.values()) == {job}
    listed = {each["id"] for each in ask(api, "admin", "GET", "/v1/jobs?limit=100").json()["data"]}
    assert listed >= set(jobs.values())
    assert ask(api, "red", "GET", f"/v1/jobs?after={jobs['blue']}").status_code == 404


def test_files_and_batches_stay_inside(api: Service) -> None:
    line = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "fake", "input": "secret"}}
    file = upload(api, "red", line)
    order = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    assert ask(api, "blue", "POST", "/v1/batches", json=order).status_code == 404, "blue cannot have it read"
    batch = ask(api, "red", "POST", "/v1/batches", json=order).json()["id"]
    for method, path in (
        ("GET", f"/v1/files/{file}"),
        ("GET", f"/v1/files/{file}/content"),
        ("DELETE", f"/v1/files/{file}"),
        ("GET", f"/v1/batches/{batch}"),
        ("POST", f"/v1/batches/{batch}/cancel"),
    ):
        assert ask(api, "blue", method, path).status_code == 404, path
    assert ask(api, "blue", "GET", "/v1/files").json()["data"] == []
    assert ask(api, "blue", "GET", "/v1/batches").json()["data"] == []
    assert file in ask(api, "red", "GET", "/v1/files").text
    assert batch in ask(api, "admin", "GET", "/v1/batches").text


def test_namespaces_use_the_same_idempotency_keys_without_meeting(api: Service) -> None:
    header = {"idempotency-key": "nightly"}
    first = submit(api, "red", "for red", headers=header)
    other = submit(api, "blue", "for blue", headers=header)
    assert first != other
    assert submit(api, "red colleague", "for red", headers=header) == first


def test_a_shared_cache_is_shared_and_a_private_one_teaches_nobody_anything(api: Service) -> None:
    submit(api, "red", "the merger is off")
    assert [cached(api, who, "the merger is off") for who in ("plain", "red", "blue", "green")] == [1, 1, 0, 0]
    submit(api, "blue", "blue buys red", *(f"and more {i}" for i in range(40)))
    assert [cached(api, who, "blue buys red") for who in ("plain", "red", "blue", "green", "admin")] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "once only"}),
        ("/v2/embed", {"texts": ["once only"], "input_type": "clustering", "model": "fake"}),
        ("/embed", {"inputs": "once only"}),
        ("/v1/rerank", {"query": "once", "documents": ["once only"], "model": "fake"}),
        ("/rerank", {"query": "once", "texts": ["once only"]}),
        ("/similarity", {"inputs": {"source_sentence": "once", "sentences": ["once only"]}}),
    ],
)
def test_a_request_of_a_private_namespace_misses_what_others_have_and_gets_the_same_vector(
    api: Service, path: str, body: dict[str, Any]
) -> None:
    tagged = json.loads(json.dumps(body).replace("once", f"once {path}"))
    shared = ask(api, "plain", "POST", path, json=tagged)
    again = ask(api, "red", "POST", path, json=tagged)
    assert "computed=0" in again.headers["x-semel-cache"], again.headers
    private = ask(api, "blue", "POST", path, json=tagged)
    assert "hits=0" in private.headers["x-semel-cache"]
    assert "computed=0" in ask(api, "blue", "POST", path, json=tagged).headers["x-semel-cache"]
    assert "hits=0" in ask(api, "green", "POST", path, json=tagged).headers["x-semel-cache"]
    without_ids = [
        {key: value for key, value in answer.json().items() if key != "id"} if path.startswith("/v") else answer.json()
        for answer in (shared, private)
    ]
    assert without_ids[0] == without_ids[1]


def test_results_of_a_private_job_are_its_own_vectors(api: Service) -> None:
    texts = [f"private row {i}" for i in range(40)]
    job = submit(api, "blue", *texts)
    lines = ask(api, "blue", "GET", f"/v1/jobs/{job}/results").text.splitlines()
    shown = [json.loads(line)["embedding"] for line in lines]
    asked = ask(api, "plain", "POST", "/v1/embeddings", json={"input": texts}).json()["data"]
    assert shown == [each["embedding"] for each in asked]
    assert ask(api, "admin", "GET", f"/v1/jobs/{job}/results").text.splitlines() == lines


def test_a_plain_key_sees_no_job_of_a_namespace_whose_keys_are_gone(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\n".join([file_line("sk-red", "submit", ["namespace=red"]), file_line("sk-plain", "submit")]))
    with service(tmp_path, api_keys_file=file) as api:
        job = submit(api, "red", "left behind")
    file.write_text(file_line("sk-plain", "submit"))
    with service(tmp_path, api_keys_file=file) as api:
        assert ask(api, "plain", "GET", f"/v1/jobs/{job}").status_code == 404
        assert ask(api, "plain", "GET", "/v1/jobs").json()["data"] == []


def test_the_page_shows_the_jobs_of_the_own_namespace_and_an_administrator_all(api: Service) -> None:
    red, blue = submit(api, "red", "for the page of red"), submit(api, "blue", "for the page of blue")
    seen = {who: watched(api, who, namespace) for who, namespace in (("red", "red"), ("blue", "blue"), ("admin", None))}
    assert [red in seen["red"], blue in seen["red"]] == [True, False]
    assert [red in seen["blue"], blue in seen["blue"]] == [False, True]
    assert [red in seen["admin"], blue in seen["admin"]] == [True, True]


def watched(api: Service, who: str, namespace: str | None) -> set[str]:
    """The ids of the jobs in the first reading of /v1/events; their number is that of the overview."""
    live = api.app.state.lives.of(namespace)
    assert api.http.portal is not None
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(ask, api, who, "GET", "/v1/events")
        wait_until(lambda: live._frame.number > 0)
        api.http.portal.call(live.stop)
        answer = reading.result(10)
    parts = [block.split("\n") for block in answer.text.strip().split("\n\n") if block.startswith("event: ")]
    events = {name.removeprefix("event: "): json.loads(data.removeprefix("data: ")) for name, data in parts}
    listed = ask(api, who, "GET", "/v1/jobs", params={"limit": 100}).json()["data"]
    assert sum(events["overview"]["jobs"].values()) == len(listed)
    return {entry["job"]["id"] for entry in events["jobs"]}


def test_the_log_says_who_cancelled_and_deleted(api: Service) -> None:
    job = submit(api, "blue", "to be deleted")
    with capture_logs() as lines:
        assert ask(api, "blue", "DELETE", f"/v1/jobs/{job}").status_code == 204
        ask(api, "red", "DELETE", f"/v1/jobs/{job}")
    audit = [line for line in lines if line["event"] == f"DELETE /v1/jobs/{job}"]
    assert [(line["key"], line["namespace"], line["status"]) for line in audit] == [
        ("blue-team", "blue", 204),
        (f"key {file_line('sk-red', 'read')[:8]}", "red", 404),
    ]
