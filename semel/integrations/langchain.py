"""LangChain: `Embeddings` and a document compressor. Needs the extra: pip install 'semel[langchain]'.

store = InMemoryVectorStore(SemelEmbeddings(model="minilm", base_url="http://127.0.0.1:8700"))
"""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, SecretStr

from semel.client import Client


class SemelEmbeddings(Embeddings):
    """Embeddings from a semel server; documents and queries get the model's own prompts, if it has them.

    Args:
        client: the connection to the server; without it, one is made from `base_url` and `api_key`.
        model: a name from the server's list; None for its default.
        base_url, api_key: as `url` and `api_key` of `Client`.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        model: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._client = client or Client(base_url, api_key=api_key)
        self._model = model

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector for each text, in order. Raises what `Client.embed` raises."""
        if not texts:
            return []
        vectors: list[list[float]] = self._client.embed(texts, model=self._model, input_type="document").tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of one query. Raises what `Client.embed` raises."""
        vector: list[float] = self._client.embed([text], model=self._model, input_type="query")[0].tolist()
        return vector


class SemelRerank(BaseDocumentCompressor):
    """Keeps the documents that are most relevant to a query, the best first, with their scores in the metadata.

    Attributes:
        client: the `semel.Client` that connects to the server; without it, one is made from `base_url` and `api_key`.
        model: a name from the server's list; None for its default.
        top_n: how many documents to keep.
        base_url, api_key: as `url` and `api_key` of `Client`.
    """

    client: Any = None
    model: str | None = None
    top_n: int = 3
    base_url: str | None = None
    api_key: SecretStr | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def model_post_init(self, _: Any) -> None:
        """Connect to the server."""
        if self.client is None:
            self.client = Client(self.base_url, api_key=self.api_key.get_secret_value() if self.api_key else None)

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
