"""Device pools as processes: side by side, chosen, lost, unfit, hung, and never mixed."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from semel.backends.devices.cores import usable_cores
from semel.settings import BUILT_IN_MODELS
from tests.support.processes import ON_CPU, Processes, processes, wait_until
from tests.support.tiny_models import source


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
        assert by_itself.device == "cpu"  # the only device here that is not emulated in software
        # The counts arrive with the next heartbeat.
        wait_until(lambda: all(pool["total_requests"] for pool in semel.pools().values()))
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
        # The devices share one vector space: what one computed is a hit on the next.
        again = semel.client.wait(semel.client.submit(texts("mlx"), device="vulkan").id)
        assert again.counts.hit == 6


def test_worker_all_serves_every_device_and_restarts_a_killed_worker(tmp_path: Path) -> None:
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
            detail=semel.logs,
        )
        assert "worker mlx ended (killed by SIGKILL); starting it again" in (tmp_path / "all.log").read_text()
        assert semel.stop("all") == 0


def test_processes_share_the_cores(tmp_path: Path) -> None:
    with processes(tmp_path, toml="") as semel:
        first = semel.pid("worker")
        semel.stop("worker")
        semel._start("two", [*semel._running["api"].args[:3], "worker", "--device", "cpu", "--processes", "2"])  # type: ignore[index]
        wait_until(lambda: len(semel.pools().get("cpu", {}).get("workers", [])) == 2, timeout_s=60, detail=semel.logs)
        semel.wait_for_pool("cpu")
        wait_until(lambda: all(worker["loaded"] for worker in semel.pools()["cpu"]["workers"]), timeout_s=60)
        two = [worker for worker in semel.pools()["cpu"]["workers"] if worker["pid"] != first]
        share = max(1, usable_cores() // 2)
        assert [f"{share} threads" in worker["why"] for worker in two] == [True, True]
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
    assert "fewer than two devices" in alone.stdout
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
