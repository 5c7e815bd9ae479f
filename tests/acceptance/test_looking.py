"""What the page reads: the cache, the cost and parts of a job, the stream of events, and the machine."""

import asyncio
import csv
import io
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.support.processes import Processes, processes, stored_vectors, wait_until

NDJSON = {"content-type": "application/x-ndjson"}


def estimate(
    semel: Processes, body: str | bytes, *, kind: str = NDJSON["content-type"], **params: str
) -> httpx.Response:
    return httpx.post(
        f"{semel.url}/v1/jobs/estimate",
        content=body,
        headers={"content-type": kind},
        params={"model": "fake", **params},
        timeout=30,
    )


def lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_an_estimate_counts_what_is_cached_and_submits_nothing(semel: Processes) -> None:
    known = [f"estimated {i}" for i in range(30)]
    semel.client.wait(semel.client.submit(known, model="fake").id)
    wait_until(lambda: estimate(semel, lines(["not known"])).json()["compute_s"] is not None)
    jobs = httpx.get(f"{semel.url}/v1/jobs").json()["data"]
    new = [f"unheard of {i}" for i in range(20)]
    answer = estimate(semel, lines([*known, *new, *known[:5], *new[:5], "", "x" * 9_000_000])).json()
    assert (answer["texts"], answer["distinct"], answer["cached"], answer["to_compute"]) == (62, 50, 35, 20)
    assert answer["failed"] == 2
    assert [row["index"] for row in answer["bad_rows"]] == [60, 61]
    assert answer["preview"][:2] == [{"text": "estimated 0"}, {"text": "estimated 1"}]
    assert answer["device"] == "cpu"
    assert answer["compute_s"] > 0
    assert httpx.get(f"{semel.url}/v1/jobs").json()["data"] == jobs


def test_an_estimate_reads_what_a_job_reads(semel: Processes) -> None:
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerows([["body", "n"], ["from a table", 1], ["another", 2]])
    by_csv = estimate(semel, table.getvalue(), kind="text/csv", text_field="body")
    assert by_csv.json()["texts"] == 2
    form = httpx.post(
        f"{semel.url}/v1/jobs/estimate", files={"file": ("a.txt", b"one\ntwo\n")}, data={"model": "fake"}
    ).json()
    assert (form["texts"], form["preview"]) == (2, [{"text": "one"}, {"text": "two"}])
    refused = estimate(semel, table.getvalue(), kind="text/csv")
    assert refused.status_code == 400
    assert "columns: body, n" in refused.json()["error"]["message"]
    assert estimate(semel, "{}\n", model="nobody").status_code == 404
    assert estimate(semel, "").status_code == 400


def test_an_estimate_accepts_bodies_that_a_job_accepts(tmp_path: Path) -> None:
    with processes(tmp_path, SEMEL_MAX_BODY_BYTES="2000") as semel:
        assert estimate(semel, lines([f"a text of some length {i}" for i in range(500)])).json()["texts"] == 500


def test_an_estimate_refuses_what_a_job_refuses(semel: Processes) -> None:
    for wrong in ({"model": "none"}, {"device": "abacus"}, {"prompt_name": "none"}, {"colour": "red"}):
        routes = (f"{semel.url}/v1/jobs", f"{semel.url}/v1/jobs/estimate")
        job, asked = (httpx.post(url, params={"model": "fake", **wrong}, json={"input": ["x"]}) for url in routes)
        assert job.is_client_error
        assert (asked.status_code, asked.json()) == (job.status_code, job.json())


def test_the_parts_of_a_job(semel: Processes) -> None:
    job = semel.client.wait(semel.client.submit(["fine", "a poison b", "fine too", "poison"], model="fake").id)
    chunks = httpx.get(f"{semel.url}/v1/jobs/{job.id}/chunks").json()
    assert chunks["states"] == {"done": 1}
    assert [(c["texts"], c["failed"], c["state"]) for c in chunks["data"]] == [(4, 2, "done")]
    failed = httpx.get(f"{semel.url}/v1/jobs/{job.id}/failed", params={"limit": 1}).json()
    assert failed["has_more"] is True
    (first,) = failed["data"]
    assert (first["index"], first["text"], first["error"]["code"]) == (1, "a poison b", "backend_error")
    rest = httpx.get(f"{semel.url}/v1/jobs/{job.id}/failed", params={"after": 1}).json()
    assert [row["index"] for row in rest["data"]] == [3]
    for part in ("chunks", "failed"):
        assert httpx.get(f"{semel.url}/v1/jobs/job_none/{part}").status_code == 404


def test_ids_of_failed_texts_are_returned_unchanged(semel: Processes) -> None:
    ids = ["\ud800", {"a": [1]}, json.loads("[" * 300 + "]" * 300)]
    rows = "".join(json.dumps({"id": one, "text": ""}) + "\n" for one in ids)
    job = httpx.post(f"{semel.url}/v1/jobs", params={"model": "fake"}, content=rows, headers=NDJSON).json()
    semel.client.wait(job["id"])
    failed = httpx.get(f"{semel.url}/v1/jobs/{job['id']}/failed")
    assert [row["id"] for row in json.loads(failed.content)["data"]] == ids


@pytest.mark.parametrize("part", ["chunks", "failed"])
def test_a_position_that_no_job_can_have_is_refused(semel: Processes, part: str) -> None:
    asked = httpx.get(f"{semel.url}/v1/jobs/job_none/{part}", params={"after": 2**64})
    assert (asked.status_code, asked.json()["error"]["param"]) == (400, "after")


def space_of(semel: Processes, model: str) -> dict[str, Any]:
    """Wait until the counts, which are kept for some seconds, include the space of a model; returns that space."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [s for s in httpx.get(f"{semel.url}/v1/cache").json()["spaces"] if s["model"] == model]
        return bool(found)

    wait_until(there)
    return found[0]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """A stack for this module alone, because its tests delete from the cache."""
    with processes(tmp_path_factory.mktemp("looking"), model="text_ms=5", SEMEL_CHUNK_TEXTS="20") as running:
        yield running


def test_the_cache_reports_what_it_holds_and_how_much_it_is_used(stack: Processes) -> None:
    started = time.time()
    texts = [f"kept {i}" for i in range(10)]
    stack.client.embed(texts, model="fake")
    stack.client.embed([*texts, "one more"], model="fake")
    wait_until(lambda: space_of(stack, "fake")["lookups"] >= 21, timeout_s=30)
    space = space_of(stack, "fake")
    assert (space["entries"], space["hits"], space["lookups"]) == (11, 10, 21)
    assert space["bytes"] == 11 * 16 * 4
    assert started <= space["newest_at"] <= space["used_at"] <= time.time()
    grown = httpx.get(f"{stack.url}/v1/cache").json()["growth"]
    assert sum(part["entries"] for part in grown if part["fingerprint"] == space["fingerprint"]) == 11


def test_pruning_only_counts_until_dry_run_is_off(stack: Processes) -> None:
    stack.client.embed([f"pruned {i}" for i in range(5)], model="prompted", prompt_name="query")
    fingerprint = space_of(stack, "prompted")["fingerprint"]

    def prune(**body: Any) -> httpx.Response:
        return httpx.post(f"{stack.url}/v1/cache/prune", json=body)

    assert prune(fingerprint=fingerprint).json() == {"object": "pruned", "entries": 5, "dry_run": True}
    assert space_of(stack, "prompted")["entries"] == 5
    assert prune(fingerprint=fingerprint, dry_run=False).json()["entries"] == 5
    assert "prompted" not in {s["model"] for s in httpx.get(f"{stack.url}/v1/cache").json()["spaces"]}
    refused = prune(dry_run=False)
    assert refused.status_code == 400
    assert "nothing selects vectors to delete" in refused.json()["error"]["message"]
    assert prune(fingerprint="zz").status_code == 400


def test_the_totals_still_include_a_pruned_space(stack: Processes) -> None:
    for _ in range(2):
        # The query prompt has its own vector space.
        stack.client.embed(["saved once"], model="prompted", input_type="query")
    wait_until(lambda: space_of(stack, "prompted")["hits"] >= 1)
    before = httpx.get(f"{stack.url}/v1/cache").json()["totals"]
    assert before["lookups"] > before["hits"] > 0
    gone = {"fingerprint": space_of(stack, "prompted")["fingerprint"], "dry_run": False}
    assert httpx.post(f"{stack.url}/v1/cache/prune", json=gone).json()["entries"] == 1
    after = httpx.get(f"{stack.url}/v1/cache").json()
    assert "prompted" not in {space["model"] for space in after["spaces"]}
    assert after["totals"] == before


def test_verifying_reports_its_progress(stack: Processes) -> None:
    stack.client.embed(["verified"], model="fake")
    answer = httpx.post(f"{stack.url}/v1/cache/verify").text
    name, data = answer.strip().split("\n\n")[-1].split("\n")
    assert name == "event: end"
    end = json.loads(data.removeprefix("data: "))
    assert end["entries"] >= 1
    assert (end["damaged"], end["keys"], end["repaired"]) == (0, [], False)


@contextmanager
def watching(semel: Processes) -> Iterator[Iterator[tuple[str, Any]]]:
    """The events of /v1/events as (name, data)."""

    def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))

    with httpx.stream("GET", f"{semel.url}/v1/events", timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


def test_the_stream_reports_pools_queues_and_jobs_until_they_end(stack: Processes) -> None:
    with watching(stack) as events:
        assert next(events)[0] == "history"
        overview = next(data for name, data in events if name == "overview")
        assert overview["ready"]["ready"] is True
        assert [pool["device"] for pool in overview["pools"]] == ["cpu"]
        assert {queue["queue"] for queue in overview["queues"]} == {"interactive.cpu", "bulk.cpu"}
        job = stack.client.submit([f"watched {i}" for i in range(600)], model="fake")
        rates, computed = [], 0.0
        for name, data in events:
            if name == "overview" and data["point"]:
                computed = max(computed, data["point"]["computed"])
            for entry in data if name == "jobs" else ():
                if entry["job"]["id"] == job.id:
                    rates.append(entry["texts_per_s"])
                    status = entry["job"]["status"]
            if rates and status == "completed":
                break
        assert max(rates) > 0
        assert computed > 0


def test_progress_is_reported_before_a_chunk_is_done(tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=200", SEMEL_MAX_BATCH_TOKENS="20") as semel, watching(semel) as events:
        job = semel.client.submit([f"text {i}" for i in range(40)], model="fake")
        within = []
        for entry in (row for name, data in events if name == "jobs" for row in data if row["job"]["id"] == job.id):
            if entry["job"]["status"] == "completed":
                break
            within.append((entry["job"]["counts"]["done"], entry["done"]))
    assert any(counted == 0 < done < 40 for counted, done in within), within
    assert [done for _, done in within] == sorted(done for _, done in within)


def test_progress_never_exceeds_what_is_done(tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=5", SEMEL_CHUNK_TEXTS="50") as semel, watching(semel) as events:
        job = semel.client.submit([f"one of several chunks {i}" for i in range(1500)], model="fake")
        seen = []
        for entry in (row for name, data in events if name == "jobs" for row in data if row["job"]["id"] == job.id):
            assert entry["done"] <= stored_vectors(tmp_path / "home")
            seen.append(entry["done"])
            if entry["job"]["status"] == "completed":
                break
    assert len(set(seen)) > 3


def test_among_very_many_open_jobs_those_in_progress_are_reported(tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=20", SEMEL_CHUNK_TEXTS="20") as semel:
        first = semel.client.submit([f"first {i}" for i in range(400)], model="fake")
        with watching(semel) as events:
            for n in range(80):
                semel.client.submit([f"{n} waits {i}" for i in range(20)], model="fake")
            for name, data in events:
                if name != "jobs":
                    continue
                assert sum(entry["job"]["status"] == "in_progress" for entry in data) <= 60
                entries = {entry["job"]["id"]: entry for entry in data}
                assert first.id in entries
                if entries[first.id]["job"]["status"] == "completed":
                    break


def test_watchers_share_one_reading(stack: Processes) -> None:
    async def numbers(count: int) -> list[list[str]]:
        async with httpx.AsyncClient(timeout=30) as client:

            async def watch() -> list[str]:
                seen = []
                async with client.stream("GET", f"{stack.url}/v1/events") as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith('data: {"pools"'):
                            seen.append(line)
                        if len(seen) == 3:
                            return seen
                raise AssertionError("the stream ended")

            return await asyncio.gather(*(watch() for _ in range(count)))

    received = asyncio.run(numbers(4))
    assert len({line for seen in received for line in seen}) <= 5  # 12 if each watcher had readings of its own


def test_the_stream_reports_a_dead_redis_and_goes_on(tmp_path: Path) -> None:
    with processes(tmp_path) as semel, watching(semel) as events:
        next(data for name, data in events if name == "overview")
        semel.stop("redis", signal.SIGKILL)
        trouble = next(data for name, data in events if name == "trouble")
        assert "Redis does not answer" in trouble["message"]
        semel.start_redis()
        assert next(data for name, data in events if name == "overview")


def test_a_watcher_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=20") as semel, watching(semel) as events:
        next(data for name, data in events if name == "overview")
        job = semel.client.submit([f"followed {i}" for i in range(400)], model="fake")
        with httpx.stream("GET", f"{semel.url}/v1/jobs/{job.id}/events", timeout=30) as following:
            next(following.iter_lines())
            semel.stop("api")  # fails if the API does not end
        assert "graceful" not in semel.logs()


def test_the_inventory_lists_what_is_usable_and_how_to_get_the_rest(semel: Processes) -> None:
    first = httpx.get(f"{semel.url}/v1/inventory", timeout=120)
    inventory = first.json()
    devices = {device["name"]: device for device in inventory["devices"]}
    assert devices["cpu"]["usable"] is True
    assert devices["mps"]["usable"] is False
    assert devices["mps"]["why"]
    assert {"fake", "prompted", "reranker", "minilm"} <= {model["name"] for model in inventory["models"]}
    again = httpx.get(f"{semel.url}/v1/inventory", timeout=120)
    assert again.json() == inventory
    assert again.elapsed < first.elapsed / 2, "it looked again"


ROUTES = (
    "/", "/health/ready", "/v1/models", "/v1/jobs", "/v1/cache", "/v1/events", "/health/live", "/metrics",
    "/openapi.json",
)  # fmt: skip

_WAITING = 500


def test_every_route_answers_while_500_requests_wait_for_a_device(tmp_path: Path) -> None:
    with processes(tmp_path) as running:
        running.client.embed(["cached before"], model="fake")
        with _silent_worker(running) as resume:
            asyncio.run(_ask_while_requests_wait(running.url, resume))


@contextmanager
def _silent_worker(semel: Processes) -> Iterator[Callable[[], None]]:
    """Suspend the worker, which stays on the roster; yields a function that resumes it."""
    pid = semel.pid("worker")
    os.kill(pid, signal.SIGSTOP)
    try:
        with closing(redis.Redis(port=semel.redis_port)) as client:
            (card,) = client.keys("semel:worker:*")
            client.persist(card)
        yield lambda: os.kill(pid, signal.SIGCONT)
    finally:
        os.kill(pid, signal.SIGCONT)


async def _ask_while_requests_wait(url: str, resume: Callable[[], None]) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as client:

        def embed(text: str) -> Awaitable[httpx.Response]:
            return client.post("/v1/embeddings", json={"model": "fake", "input": text})

        waiting = [asyncio.ensure_future(embed(f"text {i} waits for a suspended worker")) for i in range(_WAITING)]
        deadline = time.monotonic() + 30
        while f'semel_queue_texts{{queue="interactive.cpu"}} {_WAITING}.0' not in (await client.get("/metrics")).text:
            assert time.monotonic() < deadline, "the texts of requests that wait are not counted"
            await asyncio.sleep(0.1)
        answers = {route: await _status(client, route, 10) for route in ROUTES}
        hit = await embed("cached before")
        job = await client.post("/v1/jobs", json={"model": "fake", "input": ["cached before"]})
        assert not any(request.done() for request in waiting)
        resume()
        answered = [(await request).status_code for request in waiting]
    assert {route: answer.status_code for route, answer in answers.items()} == dict.fromkeys(ROUTES, 200)
    assert (hit.headers["x-semel-cache"], job.json()["status"]) == ("hits=1; computed=0; coalesced=0", "completed")
    assert answered == [200] * _WAITING


async def _status(client: httpx.AsyncClient, route: str, timeout_s: float) -> httpx.Response:
    """Send a request and read only the status of the answer, because /v1/events never ends."""
    async with client.stream("GET", route, timeout=timeout_s) as answer:
        return answer
