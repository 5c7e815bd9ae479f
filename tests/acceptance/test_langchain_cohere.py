"""langchain-cohere, which needs an older cohere than the other tests: it runs with packages of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support.processes import Processes

PACKAGES = ["langchain-cohere==0.6.0", "cohere==5.21.1"]
TEXTS = ["the first one", "the second one"]
SCRIPT = """
import json, sys
import cohere
from langchain_cohere import CohereEmbeddings, CohereRerank

url, texts = sys.argv[1], json.loads(sys.argv[2])
options = {"cohere_api_key": "any", "base_url": url}
embeddings = CohereEmbeddings(model="fake", **options)
reranked = CohereRerank(model="reranker", top_n=1, **options).rerank(["c", "b a"], "a b")
found = {
    "version": cohere.__version__,
    "documents": embeddings.embed_documents(texts),
    "query": embeddings.embed_query(texts[0]),
    "best": reranked[0]["index"],
}
print(json.dumps(found))
"""


def test_langchain_cohere_embeds_and_reranks(semel: Processes, tmp_path: Path) -> None:
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path / "packages"),
        *PACKAGES,
    ]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "packages")}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, semel.url, json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = semel.client.embed(TEXTS, model="fake")
    assert found["version"].startswith("5.")
    np.testing.assert_allclose(found["documents"], expected, atol=1e-6)
    np.testing.assert_allclose(found["query"], expected[0], atol=1e-6)
    assert found["best"] == 1
