"""LlamaIndex: an embedding and a node postprocessor. Needs the extra: pip install 'semel[llamaindex]'.

embedding = SemelEmbedding(model_name="minilm", base_url="http://127.0.0.1:8700")
index = VectorStoreIndex.from_documents(documents, embed_model=embedding)
"""

import asyncio
from contextlib import suppress
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from typing_extensions import override

from semel.client import Client
from semel.errors import UnavailableError


class SemelEmbedding(BaseEmbedding):
    """Embeddings from a semel server; documents and queries get the model's own prompts, if it has them.

    Attributes:
        client: the `semel.Client` that connects to the server; without it, one is made from `base_url` and `api_key`.
        model_name: a name from the server's list; empty for its default.
        embed_batch_size: texts in one request; the server's limit is 2,048 by default.
        base_url, api_key: as `url` and `api_key` of `Client`.
    """

    client: Any = Field(default=None, exclude=True)
    model_name: str = ""
    embed_batch_size: int = 1024
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True)

    @override
    def model_post_init(self, _: Any) -> None:
        if self.client is None:
            self.client = Client(self.base_url, api_key=self.api_key)

    @override
    def to_dict(self, **options: Any) -> dict[str, Any]:
        """The embedding as it is saved, with the fingerprints of its model.

        IngestionCache makes its keys of this: without them, it would return the vectors of other weights after the
        server's model, or its default, has changed.
        """
        saved: dict[str, Any] = super().to_dict(**options)
        with suppress(UnavailableError):  # it can be saved without a server
            served = (each for each in self.client.models() if each.id == self.model_name or not self.model_name)
            model = next(served, None)  # the default model is the first of the list
            saved["fingerprints"] = None if model is None else model.fingerprints
        return saved

    @classmethod
    @override
    def class_name(cls) -> str:
        return "SemelEmbedding"

    @override
    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.client.embed([query], model=self.model_name, input_type="query")[0].tolist()
        return vector

    @override
    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    @override
    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    @override
    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.client.embed(texts, model=self.model_name, input_type="document").tolist()
        return vectors

    @override
    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class SemelRerank(BaseNodePostprocessor):
    """Keeps the nodes that are most relevant to the query, the best first, with their new scores.

    Attributes:
        client: the `semel.Client` that connects to the server; without it, one is made from `base_url` and `api_key`.
        model: a name from the server's list; None for its default.
        top_n: how many nodes to keep.
        base_url, api_key: as `url` and `api_key` of `Client`.
    """

    client: Any = Field(default=None, exclude=True)
    model: str | None = None
    top_n: int = 3
    base_url: str | None = None
    api_key: str | None = Field(default=None, exclude=True)

    @override
    def model_post_init(self, _: Any) -> None:
        if self.client is None:
            self.client = Client(self.base_url, api_key=self.api_key)

    @classmethod
    @override
    def class_name(cls) -> str:
        return "SemelRerank"

    @override
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("SemelRerank needs the query; pass query_bundle or query_str")
        if not nodes:
            return []
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self.client.rerank(query_bundle.query_str, texts, model=self.model, top_n=self.top_n)
        return [NodeWithScore(node=nodes[r.index].node, score=r.score) for r in ranked]
