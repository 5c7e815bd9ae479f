"""Documents become drafts: their text is split into chunks, each with its key and its payload."""

import json

from semel.cache.keys import text_key
from semel.chunking import Chunker, Piece
from semel.errors import BadInputError
from semel.sync.document import Chunk, Document, Draft, Payload, content_digest, payload_digest
from semel.sync.headings import Headings
from semel.values.text import lone_surrogate


class Drafter:
    """Splits documents. Thread-safe.

    Args:
        chunker: splits by the tokens of the model.
        key_base: of the model's vector space; see `semel.cache.keys`.
        payload: the fields that the index keeps.

    Attributes:
        payload: the same.
    """

    def __init__(self, chunker: Chunker, key_base: bytes, payload: tuple[str, ...]) -> None:
        self._chunker = chunker
        self._key_base = key_base
        self.payload = payload

    def draft(self, document: Document) -> Draft:
        """The chunks of a document.

        Raises:
            BadInputError: it has no text, or one that cannot be stored.
        """
        text = document.text
        _check(text, "its text")
        if not text.strip():
            raise BadInputError("its text is empty")
        own = [name for name in self.payload if name != "heading"]
        fields: Payload = {name: document.fields.get(name) for name in own}
        _check(json.dumps(fields, ensure_ascii=False), "its payload", "\\u0000")
        return Draft(
            document.id,
            document.version,
            content_digest(text),
            payload_digest(fields),
            [self._chunk(piece, payload) for piece, payload in self._pieces(document, fields)],
        )

    def _pieces(self, document: Document, fields: Payload) -> list[tuple[Piece, Payload]]:
        pieces = self._chunker.pieces(document.text, markdown=document.markdown)
        if "heading" not in self.payload:
            return [(piece, fields) for piece in pieces]
        if not document.markdown:
            heading = document.fields.get("heading")  # of a row, or of a loader's metadata
            return [(piece, {**fields, "heading": heading}) for piece in pieces]
        headings = Headings(document.text)
        return [(piece, {**fields, "heading": headings.at(piece.start)}) for piece in pieces]

    def _chunk(self, piece: Piece, payload: Payload) -> Chunk:
        return Chunk(text_key(self._key_base, piece.text), piece.text, payload)


def _check(text: str, what: str, null: str = "\0") -> None:
    """Raises BadInputError for what a database or UTF-8 cannot hold."""
    if null in text:
        raise BadInputError(f"{what} contains NUL, which databases cannot store")
    if surrogate := lone_surrogate(text):
        raise BadInputError(f"{what} contains {surrogate}, which UTF-8 cannot encode")
