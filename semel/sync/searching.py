"""Questions to the index of a sync."""

from semel.sync.document import Payload
from semel.sync.embedding import Embedding
from semel.sync.opened import OpenedSync
from semel.sync.sinks import Match

_RERANKED = 5
"""For each result that is wanted, so many are scored again."""


def search(
    opened: OpenedSync, embedding: Embedding, question: str, *, k: int, where: Payload, rerank: str | None = None
) -> list[Match]:
    """The k chunks that are nearest to a question, the best first.

    Args:
        embedding: of the model of the collection that answers.
        where: only chunks whose payload has these values.
        rerank: the name of a cross-encoder that orders the nearest chunks; their scores are then its.

    Raises:
        ConflictError: there is no index yet.
        BadInputError: the index keeps no such field, or a model cannot be used.
        UnavailableError: the sink does not answer.
    """
    rows = opened.open(opened.serving())
    found = rows.search(embedding.question(question), k=k * _RERANKED if rerank else k, where=where)
    if not rerank or not found:
        return found
    ranked = embedding.rerank(rerank, question, [match.text for match in found])[:k]
    return [
        Match(match.id, match.document, match.number, match.text, match.payload, score)
        for match, score in ((found[i], score) for i, score in ranked)
    ]
