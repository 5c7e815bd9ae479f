"""What frameworks do with their objects: they copy them, pickle them, and send them to other processes."""

import copy
import pickle
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.ingestion import IngestionCache, IngestionPipeline

from semel.client import Client
from semel.integrations import langchain, llamaindex
from semel.values.model import ModelEntry
from tests.support.remote import client_of_api
from tests.support.service import service

URL = "http://127.0.0.1:1"

MADE = [
    langchain.SemelEmbeddings(model="fake", base_url=URL, api_key="key"),
    langchain.SemelRerank(model="fake", base_url=URL, api_key="key"),
    llamaindex.SemelEmbedding(model_name="fake", base_url=URL, api_key="key"),
    llamaindex.SemelRerank(model="fake", base_url=URL, api_key="key"),
]


def client_in(made: Any) -> Client:
    found: Client = made._client if isinstance(made, langchain.SemelEmbeddings) else made.client
    return found


@pytest.mark.parametrize("made", MADE, ids=lambda made: f"{type(made).__module__}.{type(made).__name__}")
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_reaches_the_same_server(made: Any, again: Any) -> None:
    client = client_in(again(made))
    assert client.url == URL
    assert client._exchange._http.headers["authorization"] == "Bearer key"


def test_a_copied_client_has_its_own_connections() -> None:
    with Client(URL) as client, copy.deepcopy(client) as other:
        client.close()
        assert not other._exchange._http.is_closed


def test_an_ingestion_cache_notices_that_the_servers_model_changed(tmp_path: Any) -> None:
    cache, dimensions = IngestionCache(), []
    for dim in (8, 12):
        models = {"fake": ModelEntry(f"fake:?dim={dim}")}
        with service(tmp_path / str(dim), models=models) as api, client_of_api(api.http) as client:
            embedding = llamaindex.SemelEmbedding(client=client)
            pipeline = IngestionPipeline(transformations=[embedding], cache=cache)
            (node,) = pipeline.run(documents=[Document(text="the same text", doc_id="1")])
            dimensions.append(len(node.embedding or []))
    assert dimensions == [8, 12]
