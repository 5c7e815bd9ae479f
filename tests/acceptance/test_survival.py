"""What must hold whichever part dies. Each test kills a part in the middle of a job."""

import signal
import time
from collections import Counter
from pathlib import Path

import redis

from semel.client import RemoteJob
from tests.support.processes import Processes, processes, stored_vectors, wait_until

TEXTS = [f"text number {i}" for i in range(6000)]
SLOW = "text_ms=1"
"""6,000 texts take six seconds: long enough to kill something."""


def start_job(semel: Processes) -> RemoteJob:
    """A job that is well under way."""
    job = semel.client.submit(TEXTS, model="fake")
    wait_until(lambda: stored_vectors(semel.folder / "home") > 500, detail=semel.logs)
    assert not semel.client.job(job.id).status.ended
    return job


def check_complete(semel: Processes, job: RemoteJob) -> RemoteJob:
    job = semel.client.wait(job.id, timeout_s=60)
    assert (job.status, job.counts.done, job.counts.failed) == ("completed", len(TEXTS), 0), semel.logs()
    rows = semel.client.results(job.id)
    assert len({row.tobytes() for row in rows}) == len(TEXTS)
    assert (rows[[0, 3000, 5999]] == semel.client.embed([TEXTS[i] for i in (0, 3000, 5999)], model="fake")).all()
    return job


def test_a_killed_worker_loses_nothing_and_little_is_computed_twice(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with processes(tmp_path, model=f"{SLOW}&journal={journal}", SEMEL_MAX_BATCH_TOKENS="400") as semel:
        job = start_job(semel)
        journal_lines = len(journal.read_text().splitlines())
        semel.stop("worker", signal.SIGKILL)
        semel.start_worker("second")
        check_complete(semel, job)
        computed = journal.read_text().splitlines()
        assert len(computed) > journal_lines > 500
        twice = [text for text, count in Counter(computed).items() if count > 1]
        warm_up = 3  # its texts are run by both workers
        assert len(twice) <= 400 // 3 + warm_up  # a batch holds 133 texts of three words


def test_another_worker_takes_over_while_it_runs(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW) as semel:
        semel.start_worker("second")
        wait_until(lambda: len(semel_workers(semel)) == 2, detail=semel.logs)
        job = start_job(semel)
        semel.stop("worker", signal.SIGKILL)
        check_complete(semel, job)


def semel_workers(semel: Processes) -> list[object]:
    import httpx

    return [worker for pool in httpx.get(f"{semel.url}/health/backends").json() for worker in pool["workers"]]


def test_an_emptied_redis_loses_nothing(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW) as semel:
        job = start_job(semel)
        for _ in range(3):
            redis.Redis(port=semel.redis_port).flushall()
            time.sleep(0.4)
        check_complete(semel, job)


def test_a_restarted_redis_loses_nothing(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW) as semel:
        job = start_job(semel)
        semel.stop("redis", signal.SIGKILL)
        time.sleep(1)
        semel.start_redis()
        check_complete(semel, job)


def test_a_restarted_api_loses_nothing(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW) as semel:
        job = start_job(semel)
        semel.stop("api", signal.SIGKILL)
        semel.start_api()
        check_complete(semel, job)


def test_cancelling_stops_within_a_chunk(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW) as semel:
        job = start_job(semel)
        semel.client.cancel(job.id)
        job = semel.client.wait(job.id, timeout_s=20)
        assert job.status == "cancelled"
        count = stored_vectors(semel.folder / "home")
        time.sleep(1)
        assert stored_vectors(semel.folder / "home") == count < len(TEXTS)


def test_a_job_waits_while_the_database_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with processes(tmp_path, SEMEL_DATABASE_MAX_BYTES=str(3 << 20)) as semel:
        texts = [f"{'text ' * 10}{i}" for i in range(20_000)]
        job = semel.client.submit(texts, model="fake")
        wait_until(lambda: "is full: free disk space" in semel.client.job(job.id).why, detail=semel.logs)
        assert semel.client.job(job.id).status == "in_progress"
        kept = stored_vectors(semel.folder / "home")
        assert kept > 0
        assert "0 damaged" in semel.semel("cache", "verify").stdout
        semel.stop("worker")
        semel.stop("api")
        del semel.environment["SEMEL_DATABASE_MAX_BYTES"]  # somebody makes room
        semel.start_api()
        semel.start_worker()
        done = semel.client.wait(job.id, timeout_s=60)
        assert (done.status, done.counts.done, done.counts.failed) == ("completed", 20_000, 0)
        assert "Traceback" not in semel.logs()


def test_a_dead_redis_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        semel.client.embed(["known"], model="fake")
        semel.stop("redis")
        assert semel.client.embed(["known"], model="fake").shape == (1, 16)  # hits need no Redis
        refused = semel.semel("jobs", "submit", str(_file(tmp_path)), "--url", semel.url, ok=False)
        assert refused.returncode == 1
        assert "Redis does not answer" in refused.stderr
        assert semel.client.ready()["redis"].startswith("Redis does not answer")


def _file(folder: Path) -> Path:
    file = folder / "in.txt"
    file.write_text("one\ntwo\n")
    return file


def test_a_worker_with_other_weights_under_the_same_name_is_refused(tmp_path: Path) -> None:
    with processes(tmp_path) as semel:
        other = tmp_path / "other.toml"
        other.write_text('default_model = "fake"\n[models.fake]\nsource = "fake:?dim=16&weights=b"\n')
        semel.environment["SEMEL_CONFIG"] = str(other)
        refused = semel.semel("worker", "--device", "cpu", ok=False)
        assert refused.returncode == 1
        assert "a live worker serves 'fake' with fingerprint" in refused.stderr
        assert "they differ in: weights" in refused.stderr


def test_a_lost_device_ends_the_worker_and_its_successor_goes_on(tmp_path: Path) -> None:
    with processes(tmp_path, model=f"{SLOW}&dead_after=4") as semel:
        job = semel.client.submit(TEXTS, model="fake")
        worker = semel._running["worker"]
        wait_until(lambda: worker.poll() is not None, detail=semel.logs)
        assert worker.returncode == 1
        assert "the device is lost" in (tmp_path / "worker.log").read_text()
        (tmp_path / "semel.toml").write_text(f'default_model = "fake"\n[models.fake]\nsource = "fake:?dim=16&{SLOW}"\n')
        semel.start_worker("second")
        check_complete(semel, job)


def test_small_jobs_do_not_wait_for_large_ones_that_came_before_them(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW, SEMEL_CHUNK_TEXTS="200") as semel:
        texts = [f"{'x ' * 5}{i}" for i in range(30_000)]  # 30 s of work, of which the window holds 1.6 s
        large = [semel.client.submit(texts[start : start + 10_000], model="fake") for start in (0, 10_000, 20_000)]
        wait_until(lambda: stored_vectors(semel.folder / "home") > 500)
        small = [semel.client.submit([f"small {i} {text}" for text in range(50)], model="fake") for i in range(3)]
        for job in small:
            semel.client.wait(job.id, timeout_s=15)
        semel.client.embed(["interactive"], model="fake")
        wait_until(lambda: all(semel.client.job(job.id).counts.done for job in large), detail=semel.logs)
        assert not any(semel.client.job(job.id).status.ended for job in large), "the large jobs share the pool as well"
        for job in large:
            semel.client.cancel(job.id)
