"""Device pools as processes: side by side, chosen, lost, unfit, hung, and never mixed."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from semel.client import RemoteJob
from semel.settings import BUILT_IN_MODELS
from tests.support.processes import Processes, processes, wait_until
from tests.support.tiny_models import source

ON_CPU = {"SEMEL_SOFTWARE_DEVICES": "true"}
"""MLX without Metal, and Vulkan without a GPU."""


def texts(name: str, count: int = 6) -> list[str]:
    return [f"{name} is sentence number {i} of a small job" for i in range(count)]


@pytest.mark.usefixtures("vulkan")
def test_three_pools_work_side_by_side_and_agree(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    with processes(tmp_path, toml="", **ON_CPU) as semel:
        semel.start_worker("mlx", device="mlx")
        semel.start_worker("vulkan", device="vulkan:0")
        for device in ("mlx", "vulkan", "cpu"):
            semel.wait_for_pool(device)
        asked = {device: semel.client.submit(texts(device), device=device) for device in ("mlx", "vulkan", "cpu")}
        by_itself = semel.client.submit(texts("auto"))
        reference = SentenceTransformer(str(source(BUILT_IN_MODELS["minilm"].source).path), device="cpu")
        for name, job in {**asked, "auto": by_itself}.items():
            done = semel.client.wait(job.id, timeout_s=120)
            assert (done.status, done.counts.computed) == ("completed", 6)
            got, expected = semel.client.results(job.id), reference.encode(texts(name))
            assert (got * expected).sum(axis=1).min() > 0.999
        assert {device: job.device for device, job in asked.items()} == {"mlx": "mlx", "vulkan": "vulkan", "cpu": "cpu"}
        assert by_itself.device == "cpu"  # the only one here that is no imitation
        wait_until(lambda: all(pool["total_requests"] for pool in semel.pools().values()))  # told with the next beat
        pools = semel.pools()
        for device in asked:
            pool = pools[device]
            assert pool["latency_ms"]["p50"] > 0
            assert pool["latency_ms"]["p99"] >= pool["latency_ms"]["p50"]
            assert 0 < pool["batch_efficiency"] <= 1
            assert pool["load_time_s"] > 0
            assert pool["memory_usage_bytes"] > 10 << 20
            assert pool["error_rate"] == 0
            assert time.time() - 120 < pool["last_request"] <= time.time()
        # One space: what one device computed is a hit on the next.
        again = semel.client.wait(semel.client.submit(texts("mlx"), device="vulkan").id)
        assert again.counts.hit == 6


SLOW, SLOW_TEXTS = "text_ms=20", 300


def slow_job(semel: Processes, *, device: str) -> RemoteJob:
    job = semel.client.submit([f"slow text {i}" for i in range(SLOW_TEXTS)], model="fake", device=device)
    wait_until(lambda: semel.client.job(job.id).counts.computed > 0, told=semel.logs)
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


def test_another_space_is_a_name_of_its_own_and_never_mixed(tmp_path: Path) -> None:
    with processes(tmp_path, toml=OWN, SEMEL_CHUNK_TEXTS="50", **ON_CPU) as semel:
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
        wait_until(lambda: "it waits for one" in semel.client.job(job.id).why, told=semel.logs)
        assert "mlx serves fake@mlx, which is another space" in semel.client.job(job.id).why
        wait_until(lambda: semel.client.job(strict.id).status == "failed", told=semel.logs)
        semel.start_worker("again")
        done = semel.client.wait(job.id, timeout_s=90)
        assert (done.status, done.counts.failed) == ("completed", 0)


def test_a_device_that_fails_its_self_test_is_shown_and_gets_no_work(tmp_path: Path) -> None:
    with processes(tmp_path, **ON_CPU) as semel:
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
        assert waiting.why == "mlx: no worker with fake is alive now, it waits for one"
        (tmp_path / "semel.toml").write_text(good)
        semel.start_worker("mlx", device="mlx")
        assert semel.wait_for_pool("mlx")["why"] != pool["why"]


def test_a_hung_device_ends_its_worker_with_a_dump(tmp_path: Path) -> None:
    with processes(tmp_path, model="hang_on=stuck", SEMEL_HUNG_AFTER_S="1", **ON_CPU) as semel:
        semel.start_worker("mlx", device="mlx")
        semel.wait_for_pool("mlx")
        worker = semel._running["mlx"]
        job = semel.client.submit(["this one is stuck"], model="fake", device="mlx")
        wait_until(lambda: worker.poll() is not None, told=semel.logs)
        assert worker.returncode == 70
        log = (tmp_path / "mlx.log").read_text()
        assert "mlx hangs: a batch has not ended for" in log
        assert 'File "' in log
        assert "in forward" in log
        assert semel.pools()["mlx"]["status"] == "failed"
        wait_until(lambda: semel.client.job(job.id).device == "cpu", told=semel.logs)
        semel.client.cancel(job.id)


def test_a_worker_for_every_device_and_what_dies_is_started_again(tmp_path: Path) -> None:
    with processes(tmp_path, **ON_CPU) as semel:
        semel.stop("worker")
        semel._start("all", [*semel._running["api"].args[:3], "worker", "--all"])  # type: ignore[index]
        for device in ("mlx", "cpu"):
            semel.wait_for_pool(device)
        (worker,) = semel.pools()["mlx"]["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        wait_until(
            lambda: any(w["pid"] != worker["pid"] for w in semel.pools().get("mlx", {}).get("workers", [])),
            timeout_s=60,
            told=semel.logs,
        )
        assert "worker mlx ended (killed by SIGKILL); starting it again" in (tmp_path / "all.log").read_text()
        assert semel.stop("all") == 0


def test_processes_share_the_cores(tmp_path: Path) -> None:
    with processes(tmp_path, toml="") as semel:
        semel.stop("worker")
        semel._start("two", [*semel._running["api"].args[:3], "worker", "--device", "cpu", "--processes", "2"])  # type: ignore[index]
        wait_until(lambda: len(semel.pools().get("cpu", {}).get("workers", [])) == 2, timeout_s=60, told=semel.logs)
        semel.wait_for_pool("cpu")
        reasons = [worker["why"] for worker in semel.pools()["cpu"]["workers"]]
        assert all(" threads" not in why or "1 threads" in why for why in reasons)
        refused = semel.semel("worker", "--device", "mlx", "--processes", "2", ok=False)
        assert "--processes shares the cores of the CPU" in refused.stderr
        assert "give one of the two" in semel.semel("worker", "--all", "--device", "cpu", ok=False).stderr


def test_devices_are_listed_measured_and_compared(semel: Processes, tmp_path: Path) -> None:
    listed = {d["name"]: d for d in json.loads(semel.semel("devices", "--json").stdout)}
    assert listed["cpu"]["usable"]
    assert "SEMEL_SOFTWARE_DEVICES=true" in listed["mlx"]["why"]
    measured = semel.semel("devices", "--measure", "--model", "fake").stdout
    assert "texts/s, " in measured
    assert "auto takes cpu: " in measured
    alone = semel.semel("devices", "--agree", "fake")
    assert "not two devices" in alone.stdout
    refused = semel.semel("worker", "--device", "mlx", ok=False)
    assert refused.returncode == 2
    assert "device 'mlx' cannot be used: on the CPU, no Metal here" in refused.stderr


def test_models_are_checked_and_pulled(semel: Processes) -> None:
    checked = semel.semel("models", "check", "minilm", "--device", "cpu").stdout
    for line in (
        "self-test    the device computes",
        "fingerprint  ",
        "memory       ",
        "meaning      cat and feline 0.5",
    ):
        assert line in checked
    assert checked.endswith("minilm works on cpu\n")
    assert "model.safetensors" not in semel.semel("models", "pull", "minilm").stdout
    assert "MB of weights" in semel.semel("models", "pull", "minilm").stdout
    unknown = semel.semel("models", "pull", "nothing", ok=False)
    assert "there is no model named 'nothing' (known: " in unknown.stderr


def test_an_unknown_device_is_refused_by_the_api(semel: Processes) -> None:
    answer = httpx.post(f"{semel.url}/v1/jobs", json={"model": "fake", "input": ["one"], "device": "abacus"})
    assert answer.status_code == 400
    assert "known: auto, mlx, cuda, vulkan, mps, cpu" in answer.json()["error"]["message"]
