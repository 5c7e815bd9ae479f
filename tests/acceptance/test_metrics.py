"""Each metric moves when its event happens, and has no label that could grow without bound."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from semel.cache.keys import input_key
from semel.cli.work.parts import free_port
from semel.metrics import METRICS
from tests.support.processes import ON_CPU, Processes, processes, wait_until

ROOT = Path(__file__).parents[2]


class Scrape:
    """The samples of one answer, as a mapping from name and labels to value."""

    def __init__(self, url: str) -> None:
        answer = httpx.get(f"{url}/metrics")
        assert answer.status_code == 200
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples.get((name, tuple(sorted(labels.items()))), 0.0)

    def names(self) -> set[str]:
        """The names as the table lists them: one name for all parts of a histogram."""
        return {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in self.samples if not name.endswith("_created")}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Processes, str]]:
    """A stack whose worker knows 20 words, fails on `poison`, and serves metrics."""
    port = free_port()
    model = "fail_on=poison&memory_tokens=300&text_ms=2"
    settings = {"SEMEL_METRICS_PORT": str(port), "SEMEL_CHUNK_TEXTS": "100"}
    with processes(tmp_path_factory.mktemp("metrics"), model=model, **settings) as running:
        yield running, f"http://127.0.0.1:{port}"


def test_texts_batches_and_stages_of_a_worker(stack: tuple[Processes, str]) -> None:
    semel, worker = stack
    before = Scrape(worker)
    texts = [f"text number {i} of two hundred" for i in range(200)]  # one chunk of 100 does not fit into the memory
    job = semel.client.wait(semel.client.submit([*texts, texts[0], "poison"], model="fake").id)
    assert job.counts.failed == 1
    at_once = Scrape(semel.url).value("semel_request_texts_total", outcome="hit", model="fake")
    semel.client.wait(semel.client.submit([*texts, *texts[:50], "one that is new"], model="fake").id)
    assert Scrape(semel.url).value("semel_request_texts_total", outcome="hit", model="fake") == at_once + 200
    semel.client.embed(["by a request"], model="fake")
    after = Scrape(worker)

    def grew(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    of_texts = {
        o: grew("semel_texts_total", outcome=o, model="fake", device="cpu") for o in ("computed", "failed", "hit")
    }
    assert of_texts == {"computed": 202, "failed": 1, "hit": 50}  # a chunk of hits alone is never sent to a worker
    outcomes = {dict(labels)["outcome"] for name, labels in after.samples if name == "semel_texts_total"}
    assert outcomes == {"hit", "computed", "coalesced", "failed"}  # else the first failure would raise no alert
    assert grew("semel_messages_total", device="cpu") == 5
    assert grew("semel_batch_texts_sum", device="cpu") >= 203
    assert grew("semel_batch_texts_count", device="cpu") == grew("semel_batch_tokens_count", device="cpu") > 0
    assert grew("semel_padded_tokens_total", device="cpu") >= grew("semel_tokens_total", device="cpu") >= 600
    for stage in ("queue", "tokenise", "device", "store"):
        assert grew("semel_stage_seconds_count", stage=stage, device="cpu") > 0, stage
    assert grew("semel_stage_seconds_sum", stage="device", device="cpu") == pytest.approx(
        grew("semel_device_busy_seconds_total", device="cpu")
    )
    assert grew("semel_memory_halvings_total", device="cpu") > 0
    assert grew("semel_claims_total", result="taken") == 203
    assert (
        after.value("semel_memory_total_bytes", device="cpu")
        > after.value("semel_memory_bytes", device="cpu")
        > 10 << 20
    )
    assert after.value("semel_model_load_seconds", model="fake", device="cpu") > 0


def test_requests_jobs_and_pools_of_the_api(stack: tuple[Processes, str]) -> None:
    semel, _ = stack
    before = Scrape(semel.url)
    semel.client.embed(["a request of its own"], model="fake")
    wait_until(lambda: semel.pools()["cpu"]["texts_per_s"] > 0)
    wait_until(lambda: _asks_again(semel) > before.value("semel_saved_device_seconds_total", model="fake"))
    httpx.get(f"{semel.url}/no/such/path/{'x' * 50}")
    after = Scrape(semel.url)

    def grew(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grew("semel_request_texts_total", outcome="computed", model="fake") == 1
    assert grew("semel_request_texts_total", outcome="hit", model="fake") >= 1
    route = {"method": "POST", "route": "/v1/embeddings", "status": "200"}
    assert grew("semel_http_request_seconds_count", **route) >= 2
    assert grew("semel_http_request_seconds_count", method="GET", route="none", status="404") == 1
    assert after.value("semel_jobs", status="completed") >= 2
    assert after.value("semel_workers", device="cpu", status="healthy") == 1
    assert 0 <= after.value("semel_heartbeat_age_seconds", device="cpu") < 8


def test_jobs_are_timed_when_they_have_ended(stack: tuple[Processes, str]) -> None:
    semel, _ = stack
    before = Scrape(semel.url)
    job = semel.client.wait(semel.client.submit([f"timed {i}" for i in range(250)], model="fake").id)
    cancelled = semel.client.submit([f"{'never ' * 9}{i}" for i in range(50_000)], model="fake")
    semel.client.cancel(cancelled.id)
    ended = {"name": "semel_job_seconds_count"}
    for status in ("completed", "cancelled"):
        was = before.value(**ended, status=status)
        wait_until(lambda s=status, was=was: Scrape(semel.url).value(**ended, status=s) > was, timeout_s=40)
    shown = httpx.get(f"{semel.url}/v1/jobs/{job.id}").json()
    assert shown["created_at"] < shown["first_result_at"] < shown["completed_at"]
    after = Scrape(semel.url)
    took = after.value("semel_job_seconds_sum", status="completed") - before.value(
        "semel_job_seconds_sum", status="completed"
    )
    assert took >= shown["completed_at"] - shown["created_at"]
    first = "semel_job_first_result_seconds"
    assert after.value(f"{first}_count") > before.value(f"{first}_count")
    assert after.value(f"{first}_sum") > before.value(f"{first}_sum")


def test_a_retried_job_is_timed_from_its_retry(stack: tuple[Processes, str]) -> None:
    semel, _ = stack

    def ended() -> float:
        return Scrape(semel.url).value("semel_job_seconds_count", status="completed")

    count = ended()
    job = semel.client.wait(semel.client.submit(["fine so far", "poison"], model="fake").id)
    wait_until(lambda: ended() > count, timeout_s=40)
    with closing(sqlite3.connect(semel.folder / "home" / "semel.db", timeout=30)) as times, times:
        times.execute("UPDATE jobs SET created_at = 1000, first_result_at = 1001 WHERE id = ?", [job.id])
    before, count = Scrape(semel.url), ended()
    semel.client.wait(semel.client.retry(job.id).id)
    wait_until(lambda: ended() > count, timeout_s=40)
    after = Scrape(semel.url)
    took = {"name": "semel_job_seconds_sum", "status": "completed"}
    assert after.value(**took) - before.value(**took) < 60
    first = "semel_job_first_result_seconds_count"
    assert after.value(first) == before.value(first)


def test_a_job_that_is_deleted_at_once_is_timed(stack: tuple[Processes, str]) -> None:
    semel, _ = stack
    ended = {"name": "semel_job_seconds_count", "status": "completed"}
    before = Scrape(semel.url).value(**ended)
    for i in range(3):
        job = semel.client.wait(semel.client.submit([f"deleted at once {i}"], model="fake").id)
        semel.client.delete(job.id)
    assert Scrape(semel.url).value(**ended) >= before + 3


def test_lookups_damage_and_evictions(stack: tuple[Processes, str]) -> None:
    semel, _ = stack
    before = Scrape(semel.url)
    texts = [f"looked up {i}" for i in range(5)]
    semel.client.embed(texts, model="fake")
    semel.client.embed([*texts, "one of them is new"], model="fake")
    with closing(sqlite3.connect(semel.folder / "home" / "semel.db", timeout=30)) as damaged, damaged:
        newest = "SELECT key FROM vectors ORDER BY created_at DESC LIMIT 1"
        damaged.execute(f"UPDATE vectors SET data = zeroblob(64) WHERE key = ({newest})")
    semel.client.embed([*texts, "one of them is new"], model="fake")
    semel.client.wait(semel.client.submit(["", texts[0], "", ""], model="fake").id)  # an empty text is never looked up
    httpx.post(f"{semel.url}/v1/cache/prune", json={"max_bytes": 0, "dry_run": False}).raise_for_status()
    after = Scrape(semel.url)

    def grew(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grew("semel_cache_lookups_total", result="hit", model="fake") == 11
    assert grew("semel_cache_lookups_total", result="miss", model="fake") == 7
    assert grew("semel_cache_verify_failures_total") == 1
    assert grew("semel_cache_evictions_total") >= 6


def test_the_size_of_the_cache(tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        semel.client.embed([f"kept {i}" for i in range(9)], model="fake")
        assert Scrape(semel.url).value("semel_cache_entries", model="fake") == 0  # counted once a minute
        semel.stop("api")
        semel.start_api()
        wait_until(lambda: Scrape(semel.url).value("semel_cache_entries", model="fake") == 9)
        assert Scrape(semel.url).value("semel_cache_bytes", model="fake") == 9 * 16 * 4


def test_claims_that_another_worker_holds_and_claims_that_expire(tmp_path: Path) -> None:
    port = free_port()
    with processes(tmp_path, model="text_ms=1500", SEMEL_METRICS_PORT=str(port)) as semel:
        (fake,) = [m for m in httpx.get(f"{semel.url}/v1/models").json()["data"] if m["id"] == "fake"]

        def claim(text: str) -> bytes:
            return b"semel:claim:" + input_key(bytes.fromhex(fake["fingerprint"]), text, 0)

        def claims(result: str) -> float:
            return Scrape(f"http://127.0.0.1:{port}").value("semel_claims_total", result=result)

        with redis.Redis(port=semel.redis_port) as shared, ThreadPoolExecutor() as pool:
            shared.set(claim("somebody has it"), "somebody", px=1000)
            semel.client.embed(["somebody has it"], model="fake")
            assert (claims("held") >= 1, claims("taken"), claims("expired")) == (True, 1, 0)
            asked = pool.submit(semel.client.embed, ["it runs out"], model="fake")
            wait_until(lambda: shared.delete(claim("it runs out")) == 1)
            asked.result()
            assert claims("expired") == 1


def test_a_redelivered_message_is_counted(tmp_path: Path) -> None:
    port = free_port()
    with processes(tmp_path, SEMEL_METRICS_PORT=str(port)) as semel:
        semel.stop("worker")
        job = semel.client.submit(["given out twice"], model="fake")
        queue = redis.Redis(port=semel.redis_port)
        wait_until(lambda: queue.llen("bulk.cpu") == 1)
        message = json.loads(queue.lpop("bulk.cpu"))
        message["headers"]["redelivered"] = True  # as kombu does for a message that was not acknowledged in time
        message["properties"]["delivery_info"]["redelivered"] = True
        queue.lpush("bulk.cpu", json.dumps(message))
        queue.close()
        semel.start_worker()
        semel.client.wait(job.id, timeout_s=60)
        assert Scrape(f"http://127.0.0.1:{port}").value("semel_redeliveries_total", device="cpu") == 1


def _asks_again(semel: Processes) -> float:
    semel.client.embed(["a request of its own"], model="fake")
    return Scrape(semel.url).value("semel_saved_device_seconds_total", model="fake")


def test_queues_and_chunks_that_are_sent_again(tmp_path: Path) -> None:
    port = free_port()
    settings = {"SEMEL_CHUNK_TEXTS": "10", "SEMEL_METRICS_PORT": str(port), **ON_CPU}
    with processes(tmp_path, model="text_ms=30", **settings) as semel:
        semel.client.embed(["so that there is a rate"], model="fake")
        semel.stop("worker", signal.SIGKILL)
        job = semel.client.submit([f"text {i}" for i in range(100)], model="fake")
        wait_until(lambda: Scrape(semel.url).value("semel_queue_messages", queue="bulk.cpu") > 0)
        wait_until(lambda: Scrape(semel.url).value("semel_queue_oldest_seconds", queue="bulk.cpu") > 0.5)
        scrape = Scrape(semel.url)
        assert scrape.value("semel_queue_texts", queue="bulk.cpu") == 100
        assert scrape.value("semel_jobs", status="in_progress") == 1
        semel.start_worker("second")
        wait_until(lambda: semel.client.job(job.id).counts.computed > 0, detail=semel.logs)
        wait_until(lambda: Scrape(semel.url).value("semel_queue_work_seconds", queue="bulk.cpu") > 0)
        semel.stop("second", signal.SIGKILL)
        semel.start_worker("third")
        worker = f"http://127.0.0.1:{port}"
        wait_until(lambda: semel.client.job(job.id).status.ended, timeout_s=60, detail=semel.logs)
        again = {"name": "semel_chunks_resent_total", "reason": "lease_expired"}
        wait_until(lambda: Scrape(worker).value(**again) + Scrape(semel.url).value(**again) > 0)


def test_every_metric_of_the_table_is_served_and_no_other(stack: tuple[Processes, str]) -> None:
    semel, worker = stack

    def served() -> set[str]:
        return {name for url in (semel.url, worker) for name in Scrape(url).names() if name.startswith("semel_")}

    without_a_gpu = {"semel_gpu_utilization_ratio"}
    after_a_sweep = {"semel_chunks_resent_total"}
    after_a_redelivery = {"semel_redeliveries_total"}
    rare = without_a_gpu | after_a_sweep | after_a_redelivery
    wait_until(lambda: METRICS.keys() - served() <= rare, detail=lambda: str(METRICS.keys() - served()))
    assert served() - METRICS.keys() == set()


def test_the_reference_matches_the_code() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from semel.metrics import as_markdown; print(as_markdown(), end='')"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert made in (ROOT / "docs" / "reference" / "metrics.md").read_text()


def test_a_taken_port_is_reported(stack: tuple[Processes, str]) -> None:
    semel, _ = stack
    refused = semel.semel("worker", "--device", "cpu", ok=False)
    assert refused.returncode == 2 - 1
    assert "cannot serve metrics on 127.0.0.1:" in refused.stderr
