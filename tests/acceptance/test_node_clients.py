"""The clients that people use in Node, against a running stack; only the base URL is changed."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semel.values.vectors import Vectors
from tests.support.processes import Processes

HERE = Path(__file__).parent / "node"
TEXTS = ["the first one", "the second one", "the first one"]


@pytest.fixture(scope="module")
def answers(semel: Processes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each client returned; the packages are those of the lock file."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        assert os.environ.get("CI") != "true", "CI needs Node.js and npm"
        pytest.skip("Node.js is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "clients.mjs"):
        shutil.copy(HERE / name, folder / name)
    for command, seconds in (
        (["npm", "ci", "--no-audit", "--no-fund"], 300),
        (["node", "clients.mjs", semel.url], 120),
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def expected(semel: Processes) -> Vectors:
    return semel.client.embed(TEXTS, model="fake")


def check(rows: Any, expected: Vectors) -> None:
    np.testing.assert_allclose(np.array(rows, np.float32), expected, atol=1e-7)


def test_openai(answers: dict[str, Any], expected: Vectors) -> None:
    check(answers["openai"]["vectors"], expected)
    assert answers["openai"]["tokens"] == 9
    error = answers["openaiError"]
    assert (error["status"], error["code"], "no model named 'nope'" in error["message"]) == (
        404,
        "model_not_found",
        True,
    )


def test_a_connection_that_was_idle_is_used_again(answers: dict[str, Any]) -> None:
    assert answers["openaiKeptConnection"] is True


def test_openai_batches(answers: dict[str, Any], expected: Vectors) -> None:
    check(answers["openaiBatch"], expected)


def test_cohere(answers: dict[str, Any], expected: Vectors) -> None:
    check(answers["cohere"]["vectors"], expected)
    assert (answers["cohere"]["best"]["index"], answers["cohere"]["best"]["relevanceScore"]) == (1, 1)
    check(answers["cohereV1"], expected)


def test_ollama(answers: dict[str, Any], expected: Vectors) -> None:
    check(answers["ollama"]["vectors"], expected)
    assert "fake" in [name.partition(":")[0] for name in answers["ollama"]["models"]]


def test_vercels_ai(answers: dict[str, Any], expected: Vectors) -> None:
    check(answers["ai"]["vectors"], expected)
    check(answers["ai"]["one"], expected[0])
    assert answers["ai"]["tokens"] == 9
