"""A worker lives through every outage of Redis without a supervisor, and consumes again soon after it."""

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.support.processes import Processes, processes, stored_vectors, wait_until

TEXTS = [f"text number {i}" for i in range(4000)]


def start_job(semel: Processes) -> str:
    job = semel.client.submit(TEXTS, model="fake")
    wait_until(lambda: stored_vectors(semel.folder / "home") > 200, detail=semel.logs)
    return job.id


def check_alive(semel: Processes, *workers: str) -> None:
    ended = [worker for worker in workers if semel.has_ended(worker)]
    assert not ended, f"ended: {ended}\n{semel.logs()}"


@pytest.mark.parametrize("away_s", [1, 5])
def test_workers_with_work_in_hand_live_through_a_killed_redis(tmp_path: Path, away_s: float) -> None:
    with processes(tmp_path, model="text_ms=2") as semel:
        semel.start_worker("second")
        semel.wait_ready()
        job_id = start_job(semel)
        semel.stop("redis", signal.SIGKILL)
        time.sleep(away_s)
        semel.start_redis()
        job = semel.client.wait(job_id, timeout_s=60)
        assert (job.status, job.counts.done, job.counts.failed) == ("completed", len(TEXTS), 0), semel.logs()
        began = time.monotonic()
        semel.client.embed(["a new text"], model="fake")
        assert time.monotonic() - began < 10
        check_alive(semel, "worker", "second")
        assert "Traceback" not in semel.logs()


def test_a_worker_that_starts_while_redis_is_away_waits_for_it(tmp_path: Path) -> None:
    with processes(tmp_path, model="text_ms=1") as semel:
        semel.stop("worker")
        semel.stop("redis", signal.SIGKILL)
        semel.start_worker("late")
        time.sleep(6)
        check_alive(semel, "late")
        semel.start_redis()
        semel.wait_ready()
        assert semel.client.embed(["a new text"], model="fake").shape == (1, 16)
        check_alive(semel, "late")


def test_what_watches_answers_soon_while_redis_is_silent(tmp_path: Path) -> None:
    with processes(tmp_path) as semel, httpx.Client(base_url=semel.url, timeout=60) as http:
        job = semel.client.submit(["a text of a job"], model="fake").wait()
        os.kill(semel.pid("redis"), signal.SIGSTOP)
        try:
            took_s: dict[str, tuple[float, int]] = {}
            for path in (
                "/metrics",
                "/health/ready",
                "/health/backends",
                "/v1/models",
                "/v1/jobs",
                f"/v1/jobs/{job.id}",
            ):
                began = time.monotonic()
                status = http.get(path).status_code
                took_s[path] = (time.monotonic() - began, status)
        finally:
            os.kill(semel.pid("redis"), signal.SIGCONT)
        assert all(seconds < 5 for seconds, _ in took_s.values()), took_s  # ten, and twenty for readiness, once
        assert [took_s[path][1] for path in ("/metrics", "/v1/jobs", f"/v1/jobs/{job.id}")] == [200] * 3, took_s
        assert took_s["/health/ready"][1] == 503
