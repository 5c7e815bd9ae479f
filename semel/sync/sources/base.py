"""What a source of documents is."""

from collections.abc import Iterator
from typing import Protocol

from semel.sync.document import Document, Listed


class Source(Protocol):
    """Documents to follow.

    Attributes:
        threads: how many threads `read` is best called by.
    """

    threads: int

    def list(self) -> Iterator[Listed]:
        """All documents, once each, in any order, without reading what need not be read.

        Raises:
            BadInputError: there is no such source, or it cannot be read as documents.
            UnavailableError: it does not answer.
        """
        ...

    def read(self, listed: Listed) -> Document:
        """A document that `list` yielded, with its current version. Called by several threads.

        Raises:
            BadInputError: this document cannot be read; the message gives the reason without its name.
        """
        ...

    def is_current(self, document: Document) -> bool:
        """Whether the document is still what it was when it was read, as far as the source can know."""
        ...
