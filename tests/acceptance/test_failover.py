"""If a device pool is lost, unfit or hung, its work goes on elsewhere; two vector spaces are never mixed."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from semel.client import RemoteJob
from semel.errors import SemelError
from tests.support.processes import ON_CPU, Processes, processes, wait_until

SLOW, SLOW_TEXTS = "text_ms=20", 300


def slow_job(semel: Processes, *, device: str) -> RemoteJob:
    job = semel.client.submit([f"slow text {i}" for i in range(SLOW_TEXTS)], model="fake", device=device)
    wait_until(lambda: semel.client.job(job.id).counts.computed > 0, detail=semel.logs)
    return job


def test_chunks_of_a_killed_pool_move_to_another(tmp_path: Path) -> None:
    with processes(tmp_path, model=SLOW, SEMEL_CHUNK_TEXTS="50", **ON_CPU) as semel:
        semel.start_worker("mlx", device="mlx")
        semel.wait_for_pool("mlx")
        job = slow_job(semel, device="mlx")
        semel.stop("mlx", signal.SIGKILL)
        done = semel.client.wait(job.id, timeout_s=90)
        assert (done.status, done.counts.done, done.counts.failed) == ("completed", SLOW_TEXTS, 0)
        assert done.device == "cpu"
        assert "no live worker on mlx any more; cpu serves the same vector space" in done.why
        assert not np.isnan(semel.client.results(job.id)).any()


OWN = """
default_model = "fake"
[models.fake]
source = "fake:?dim=16&text_ms=20"
source_mlx = "fake:?dim=16&weights=quantised"
"""


def test_another_vector_space_has_its_own_model_name_and_is_never_mixed(tmp_path: Path) -> None:
    with processes(tmp_path, toml=OWN, SEMEL_CHUNK_TEXTS="50", SEMEL_NO_WORKER_S="2", **ON_CPU) as semel:
        semel.start_worker("mlx", device="mlx")
        semel.wait_for_pool("mlx")
        assert {m.id for m in semel.client.models()} >= {"fake", "fake@mlx"}
        small = {d: semel.client.submit(["one"], model="fake", device=d) for d in ("auto", "cpu", "mlx")}
        vectors = {}
        for device, job in small.items():
            assert semel.client.wait(job.id).status == "completed"
            vectors[device] = semel.client.results(job.id)
        assert (vectors["auto"] == vectors["cpu"]).all()
        assert np.abs(vectors["mlx"] - vectors["cpu"]).max() > 0.1
        assert (small["mlx"].model, small["cpu"].model) == ("fake@mlx", "fake")
        job = slow_job(semel, device="cpu")
        strict = semel.client.submit([f"strict {i}" for i in range(600)], model="fake", if_no_worker="fail")
        semel.stop("worker", signal.SIGKILL)
        wait_until(lambda: "the job waits for one" in semel.client.job(job.id).why, detail=semel.logs)
        assert "mlx serves fake@mlx, which is another space" in semel.client.job(job.id).why
        wait_until(lambda: semel.client.job(strict.id).status == "failed", detail=semel.logs)
        semel.start_worker("again")
        done = semel.client.wait(job.id, timeout_s=90)
        assert (done.status, done.counts.failed) == ("completed", 0)


def test_a_device_that_fails_its_self_test_is_shown_and_gets_no_work(tmp_path: Path) -> None:
    with processes(tmp_path, **ON_CPU) as semel:
        semel.wait_for_pool("cpu")
        good = (tmp_path / "semel.toml").read_text()
        (tmp_path / "semel.toml").write_text(good.replace("dim=16&", "dim=16&unfit=wrong numbers&", 1))
        failed = semel.semel("worker", "--device", "mlx", ok=False)
        assert failed.returncode == 1
        assert "the device failed its self-test: wrong numbers" in failed.stderr
        pool = semel.pools()["mlx"]
        assert (pool["status"], pool["why"]) == ("failed", "the device failed its self-test: wrong numbers")
        assert semel.pools()["cpu"]["status"] == "healthy"
        assert semel.client.submit(["one"], model="fake").device == "cpu"
        waiting = semel.client.submit(["one"], model="fake", device="mlx")
        assert waiting.why == "mlx: no live worker serves fake; the job waits for one"
        (tmp_path / "semel.toml").write_text(good)
        semel.start_worker("mlx", device="mlx")
        assert semel.wait_for_pool("mlx")["why"] != pool["why"]


def test_a_hung_device_ends_its_worker_with_a_dump(tmp_path: Path) -> None:
    with processes(tmp_path, model="hang_on=stuck", SEMEL_HUNG_AFTER_S="1", **ON_CPU) as semel:
        semel.start_worker("mlx", device="mlx")
        semel.wait_for_pool("mlx")
        worker = semel._running["mlx"]
        job = semel.client.submit(["this one is stuck"], model="fake", device="mlx")
        wait_until(lambda: worker.poll() is not None, detail=semel.logs)
        assert worker.returncode == 70
        log = (tmp_path / "mlx.log").read_text()
        assert "mlx hangs: a batch has been running for" in log
        assert 'File "' in log
        assert "in forward" in log
        assert semel.pools()["mlx"]["status"] == "failed"
        wait_until(lambda: semel.client.job(job.id).device == "cpu", detail=semel.logs)
        semel.client.cancel(job.id)


@pytest.mark.parametrize(("step", "what"), [("load", "loading"), ("warm_up", "the warm-up of")])
def test_a_model_that_hangs_while_it_loads_ends_its_worker(tmp_path: Path, step: str, what: str) -> None:
    with processes(tmp_path, toml=ONE.format(name="fake", options="")) as semel:
        hanging = ONE.format(name="fake", options=f"hang_in={step}")
        start_with(semel, "mlx", hanging, device="mlx", SEMEL_HUNG_AFTER_S="0.1", **ON_CPU)
        worker = semel._running["mlx"]
        wait_until(lambda: worker.poll() is not None, detail=semel.logs)
        assert worker.returncode == 70
        log = (tmp_path / "mlx.log").read_text()
        assert f"mlx hangs: {what} model 'fake' has been running for" in log
        assert "in _hang_in" in log, "the dump shows where"
        assert semel.pools()["mlx"]["status"] == "failed"


def test_a_model_that_loads_blocks_no_other_model_of_its_worker(tmp_path: Path) -> None:
    slow = '[models.slow]\nsource = "fake:?dim=8&load_s=6"\n'
    with (
        processes(tmp_path, toml=ONE.format(name="quick", options="") + slow) as semel,
        ThreadPoolExecutor() as threads,
    ):
        waiting = threads.submit(semel.client.embed, ["one"], model="slow")
        answered = 0
        while not waiting.done():
            assert semel.client.embed([f"text {answered}"], model="quick").shape == (1, 16)
            answered += 1
        assert waiting.result().shape == (1, 8)
        assert answered > 3
        wait_until(lambda: semel.pools()["cpu"]["workers"][0]["loaded"] == ["quick", "slow"], detail=semel.logs)


def start_with(semel: Processes, name: str, toml: str, *, device: str = "cpu", **settings: str) -> None:
    """Start a worker with its own configuration."""
    config = semel.folder / f"{name}.toml"
    config.write_text(toml)
    before = dict(semel.environment)
    semel.environment |= {"SEMEL_CONFIG": str(config), **settings}
    semel.start_worker(name, device=device)
    semel.environment = before


ONE = 'default_model = "{name}"\n[models.{name}]\nsource = "fake:?dim=16&{options}"\n'


def test_a_request_finds_the_one_worker_of_its_pool_that_serves_it(tmp_path: Path) -> None:
    with processes(tmp_path, toml=ONE.format(name="a", options="")) as semel:
        start_with(semel, "b", ONE.format(name="b", options="weights=b"))
        wait_until(lambda: {"a", "b"} <= set(semel.pools()["cpu"]["models"]), detail=semel.logs)
        wait_until(lambda: all(w["status"] == "healthy" for w in semel.pools()["cpu"]["workers"]), detail=semel.logs)
        for i in range(8):
            for model in ("a", "b"):
                assert semel.client.embed([f"text {i}"], model=model).shape == (1, 16)
        job = semel.client.wait(semel.client.submit([f"in a job {i}" for i in range(300)], model="b").id, timeout_s=60)
        assert (job.counts.computed, job.counts.failed) == (300, 0)


def test_a_request_is_computed_where_the_model_fits_and_the_device_is_alive(tmp_path: Path) -> None:
    toml = ONE.format(name="fake", options="weight_bytes=500")
    with processes(tmp_path, toml=toml, **ON_CPU) as semel:
        semel.stop("worker")
        start_with(semel, "mlx", toml, device="mlx")
        semel.wait_for_pool("mlx")
        start_with(semel, "cpu", toml, SEMEL_MAX_MODEL_BYTES="100", SEMEL_PRELOAD="false")
        semel.wait_for_pool("cpu", "standby")
        for i in range(3):
            assert semel.client.embed([f"text {i}"], model="fake").shape == (1, 16)
        semel.stop("cpu")
        start_with(semel, "dying", toml.replace("weight_bytes=500", "weight_bytes=500&dead_after=1"))
        semel.wait_for_pool("cpu")
        started = time.monotonic()
        assert semel.client.embed(["the last words of a device"], model="fake").shape == (1, 16)
        assert semel.client.embed(["and what comes after"], model="fake").shape == (1, 16)
        assert time.monotonic() - started < 30, "it waited for a pool that was gone"


def test_a_request_leaves_a_queue_that_only_a_dead_worker_serves(tmp_path: Path) -> None:
    toml = ONE.format(name="fake", options="weight_bytes=500")
    with processes(tmp_path, toml=toml, **ON_CPU) as semel:
        start_with(semel, "mlx", toml, device="mlx")
        semel.wait_for_pool("mlx")
        start_with(semel, "small", toml, SEMEL_MAX_MODEL_BYTES="100", SEMEL_PRELOAD="false")
        wait_until(lambda: len(semel.pools()["cpu"]["workers"]) == 2, detail=semel.logs)
        semel.stop("worker", signal.SIGKILL)  # it still counts as alive for some seconds
        assert semel.client.embed(["from queue to queue"], model="fake").shape == (1, 16)


def test_one_hanging_text_does_not_fail_another_job(tmp_path: Path) -> None:
    toml = ONE.format(name="fake", options="hang_on=stuck&text_ms=5")
    with processes(tmp_path, toml=toml, SEMEL_HUNG_AFTER_S="0.3", SEMEL_CHUNK_TEXTS="20") as semel:
        semel.stop("worker")
        semel._start("all", [*semel._running["api"].args[:3], "worker", "--device", "cpu", "--processes", "2"])  # type: ignore[index]
        semel.wait_for_pool("cpu")
        bad = semel.client.submit(["stuck"], model="fake")
        good = semel.client.submit([f"good {i}" for i in range(140)], model="fake")
        done = semel.client.wait(good.id, timeout_s=120)
        assert (done.counts.computed, done.counts.failed) == (140, 0)
        ended = semel.client.wait(bad.id, timeout_s=200)
        assert ended.counts.failed == 1


def test_a_default_model_that_does_not_fit_leaves_the_others_served(tmp_path: Path) -> None:
    toml = ONE.format(name="big", options="weight_bytes=500") + '[models.small]\nsource = "fake:?dim=8"\n'
    with processes(tmp_path, toml=toml) as semel:
        semel.stop("worker")
        start_with(semel, "cpu", toml, SEMEL_MAX_MODEL_BYTES="100")
        semel.wait_for_pool("cpu", "standby")
        wait_until(lambda: not next(model.live for model in semel.client.models() if model.id == "big"))
        assert semel.client.embed(["one"], model="small").shape == (1, 8)
        with pytest.raises(SemelError, match="no live worker serves 'big'"):
            semel.client.embed(["one"], model="big")
