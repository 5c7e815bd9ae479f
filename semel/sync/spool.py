"""Drafts on disk, between the plan and the run: memory stays flat whatever the size of the source."""

import json
import tempfile
from collections.abc import Iterator

from semel.sync.document import Chunk, Draft

_IN_MEMORY_BYTES = 8 << 20


class Spool:
    """Drafts in the order in which they were added; a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, "w+", encoding="ascii")  # noqa: SIM115

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, draft: Draft) -> None:
        """Keep a draft. Raises OSError if the disk is full."""
        chunks = [(chunk.key.hex(), chunk.text, chunk.payload) for chunk in draft.chunks]
        row = (draft.id, draft.version, draft.content.hex(), draft.payload.hex(), chunks)
        self._file.write(json.dumps(row) + "\n")

    def drafts(self) -> Iterator[Draft]:
        """All drafts."""
        self._file.seek(0)
        for line in self._file:
            document, version, content, payload, chunks = json.loads(line)
            parts = [Chunk(bytes.fromhex(key), text, fields) for key, text, fields in chunks]
            yield Draft(document, version, bytes.fromhex(content), bytes.fromhex(payload), parts)
