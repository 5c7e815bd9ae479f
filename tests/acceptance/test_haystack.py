"""Haystack's components against a running stack; only the base URL is changed."""

import numpy as np
import pytest
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

from tests.support.processes import Processes

KEY = Secret.from_token("any")


def test_the_tei_embedders_with_their_defaults(semel: Processes) -> None:
    where = {"api_type": "text_embeddings_inference", "api_params": {"url": f"{semel.url}/embed"}, "token": KEY}
    vector = np.array(HuggingFaceAPITextEmbedder(**where).run(text="one text")["embedding"], np.float32)
    expected = semel.client.embed(["one text"], model="fake")[0]
    assert np.linalg.norm(vector) != pytest.approx(1), "they ask for vectors that are not normalised"
    np.testing.assert_allclose(vector / np.linalg.norm(vector), expected, atol=1e-6)
    documents = HuggingFaceAPIDocumentEmbedder(**where, progress_bar=False).run([Document(content="one text")])
    np.testing.assert_array_equal(np.array(documents["documents"][0].embedding, np.float32), vector)


def test_the_openai_embedders(semel: Processes) -> None:
    where = {"api_key": KEY, "model": "fake", "api_base_url": f"{semel.url}/v1"}
    expected = semel.client.embed(["one text"], model="fake")[0]
    np.testing.assert_array_equal(
        np.array(OpenAITextEmbedder(**where).run(text="one text")["embedding"], np.float32), expected
    )
    documents = OpenAIDocumentEmbedder(**where, progress_bar=False).run([Document(content="one text")])["documents"]
    np.testing.assert_array_equal(np.array(documents[0].embedding, np.float32), expected)


def test_the_tei_ranker(semel: Processes) -> None:
    ranker = HuggingFaceTEIRanker(url=semel.url, top_k=2, token=KEY)
    ranked = ranker.run("x", documents=[Document(content="y"), Document(content="x"), Document(content="z")])
    assert ranked["documents"][0].content == "x"
    assert len(ranked["documents"]) == 2
