"""Chroma's embedding functions against a running stack, in a process of their own; only the address is changed."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from semel.values.vectors import Vectors
from tests.support.processes import Processes

TEXTS = ["the first one", "the second one", "the first one"]
SCRIPT = """
import json, sys
from chromadb.utils import embedding_functions as chroma

url, texts = sys.argv[1], json.loads(sys.argv[2])
key = {"api_key_env_var": "ANY_KEY"}
functions = {
    "openai": chroma.OpenAIEmbeddingFunction(api_base=f"{url}/v1", model_name="fake", **key),
    "cohere": chroma.CohereEmbeddingFunction(model_name="fake", **key),
    "ollama": chroma.OllamaEmbeddingFunction(url=url, model_name="fake"),
    "hugging face": chroma.HuggingFaceEmbeddingServer(url=f"{url}/embed"),
}
print(json.dumps({name: [row.tolist() for row in embed(texts)] for name, embed in functions.items()}))
"""


@pytest.fixture(scope="module")
def answers(semel: Processes) -> dict[str, Any]:
    environment = {**os.environ, "ANY_KEY": "any", "CO_API_URL": semel.url}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, semel.url, json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def expected(semel: Processes) -> Vectors:
    return semel.client.embed(TEXTS, model="fake")


@pytest.mark.parametrize("name", ["openai", "cohere", "ollama", "hugging face"])
def test_a_function_gives_the_vectors_of_the_server(answers: dict[str, Any], expected: Vectors, name: str) -> None:
    np.testing.assert_allclose(answers[name], expected, atol=1e-6)
