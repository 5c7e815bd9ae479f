"""LangChain: `Embeddings` and a document compressor. Needs the extra: pip install 'semel[langchain]'.

store = InMemoryVectorStore(SemelEmbeddings(Client("http://127.0.0.1:8700")))
"""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict

from semel.client import Client

_REQUEST_TEXTS = 1024
"""Texts in one request; the server's limit is 2,048 by default."""


class SemelEmbeddings(Embeddings):
    """Embeddings from a semel server; documents and queries get the model's own prompts, if it has them.

    Args:
        client: the connection to the server.
        model: a name from the server's list; None for its default.
    """

    def __init__(self, client: Client, *, model: str | None = None) -> None:
        self._client = client
        self._model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text, in order. Raises what `Client.embed` raises."""
        vectors: list[list[float]] = []
        for at in range(0, len(texts), _REQUEST_TEXTS):
            part = texts[at : at + _REQUEST_TEXTS]
            vectors += self._client.embed(part, model=self._model, input_type="document").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of one query. Raises what `Client.embed` raises."""
        vector: list[float] = self._client.embed([text], model=self._model, input_type="query")[0].tolist()
        return vector


class SemelRerank(BaseDocumentCompressor):
    """Keeps the documents that are most relevant to a query, the best first, with their scores in the metadata.

    Attributes:
        client: the `semel.Client` that connects to the server.
        model: a name from the server's list; None for its default.
        top_n: how many documents to keep.
    """

    client: Any
    model: str | None = None
    top_n: int = 3

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,  # noqa: ARG002  # part of the interface
    ) -> Sequence[Document]:
        """The best `top_n`, with `relevance_score` in their metadata. Raises what `Client.rerank` raises."""
        if not documents:
            return []
        texts = [document.page_content for document in documents]
        ranked = self.client.rerank(query, texts, model=self.model, top_n=self.top_n)
        return [
            documents[r.index].model_copy(
                update={"metadata": {**documents[r.index].metadata, "relevance_score": r.score}}
            )
            for r in ranked
        ]
