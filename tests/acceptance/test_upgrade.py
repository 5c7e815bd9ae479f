"""Processes of the previous commit and of this one work on one database and one Redis, as during an upgrade."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from semel.backends.fake import FakeBackend, FakeOptions
from semel.client import Client
from tests.support.processes import Processes, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package of the previous commit."""
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD~1", "semel"], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"the previous commit is not here: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    used = subprocess.run(
        [sys.executable, "-c", "import semel; print(semel.__file__)"],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert used.stdout.startswith(str(folder)), "this environment does not look at PYTHONPATH first"
    return folder


@pytest.fixture
def semel(previous: Path, tmp_path: Path) -> Iterator[Processes]:
    """Redis, and an API and a worker of the previous commit."""
    running = Processes(tmp_path, model="text_ms=1")
    for old in ("api", "worker"):
        running.own[old] = {"PYTHONPATH": str(previous)}
    try:
        running.start_all()
        yield running
    finally:
        running.close()


def check(client: Client, name: str) -> None:
    """A job and a request through this API have the right vectors."""
    texts = [f"{name} {i}" for i in range(1500)]
    expected = FakeBackend("reference", FakeOptions(dim=16), device="cpu").embed_texts(texts)
    np.testing.assert_allclose(client.submit(texts, model="fake").wait(timeout_s=60).results(), expected, atol=1e-6)
    np.testing.assert_allclose(client.embed([f"{name} 7"], model="fake"), expected[7:8], atol=1e-6)
    asked = client.embed([f"asked {name}"], model="fake")
    assert asked.shape == (1, 16)


def test_an_upgrade_goes_process_by_process(semel: Processes) -> None:
    check(semel.client, "all of the previous commit")
    semel.start_api("new api")
    with Client(semel.url_of("new api")) as new_api:
        check(new_api, "a new API, an old worker")
        semel.start_worker("new worker")
        wait_until(lambda: len(semel.pools()["cpu"]["workers"]) == 2, detail=semel.logs)
        check(semel.client, "an old API, both workers")
        check(new_api, "a new API, both workers")
        semel.stop("worker")
        check(semel.client, "an old API, a new worker")
        semel.stop("api")
        check(new_api, "all new")
    assert "Traceback" not in semel.logs()
