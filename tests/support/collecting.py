"""An ingest that keeps what it receives."""

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from semel.api.jobs.ingest import Ingest
from semel.settings import Settings
from semel.tasks.jobs.rows import NewChunk
from semel.values.model import Space
from tests.support.values import space


class Collecting(Ingest[list[NewChunk]]):
    """Keeps its chunks; its result is all of them.

    Attributes:
        takes: how many chunks came with each call of `take`.
    """

    def __init__(self, where: Space | None = None, **settings: Any) -> None:
        where = where or space()
        super().__init__(Settings(**settings), where, key_base=where.key_base)
        self.takes: list[int] = []
        self._chunks: list[NewChunk] = []

    @override
    def take(self, chunks: Sequence[NewChunk]) -> None:
        self.takes.append(len(chunks))
        self._chunks += chunks

    @override
    def end(self) -> list[NewChunk]:
        return self._chunks

    def texts(self) -> list[Any]:
        """End the submission, and return its texts."""
        return [text for chunk in self.finish() for text in chunk.texts]
