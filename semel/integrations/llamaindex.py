"""LlamaIndex: an embedding and a node postprocessor. Needs the extra: pip install 'semel[llamaindex]'.

client = Client("http://127.0.0.1:8700")
index = VectorStoreIndex.from_documents(documents, embed_model=SemelEmbedding(client=client))
"""

import asyncio
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from typing_extensions import override


class SemelEmbedding(BaseEmbedding):
    """Embeddings from a semel server; documents and queries get the model's own prompts, if it has them.

    Attributes:
        client: the `semel.Client` that connects to the server.
        model_name: a name from the server's list; empty for its default.
        embed_batch_size: texts in one request; the server's limit is 2,048 by default.
    """

    client: Any = Field(exclude=True)
    model_name: str = ""
    embed_batch_size: int = 1024

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
        client: the `semel.Client` that connects to the server.
        model: a name from the server's list; None for its default.
        top_n: how many nodes to keep.
    """

    client: Any = Field(exclude=True)
    model: str | None = None
    top_n: int = 3

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
