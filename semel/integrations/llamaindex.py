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


class SemelEmbedding(BaseEmbedding):
    """Embeddings from a semel server; documents and queries get the model's own prompts, when it has them.

    Attributes:
        client: `semel.Client` of the server.
        model_name: a name from the server's list; empty for its default.
        embed_batch_size: texts in one request; the server's own limit is 2,048 unless it was changed.
    """

    client: Any = Field(exclude=True)
    model_name: str = ""
    embed_batch_size: int = 1024

    @classmethod
    def class_name(cls) -> str:
        return "SemelEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.client.embed([query], model=self.model_name, input_type="query")[0].tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.client.embed(texts, model=self.model_name, input_type="document").tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class SemelRerank(BaseNodePostprocessor):
    """Keeps the nodes that are most relevant to the query, the best first, with the new scores.

    Attributes:
        client: `semel.Client` of the server.
        model: a name from the server's list; None for its default.
        top_n: how many to keep.
    """

    client: Any = Field(exclude=True)
    model: str | None = None
    top_n: int = 3

    @classmethod
    def class_name(cls) -> str:
        return "SemelRerank"

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
