"""Documents that Python code yields: of LangChain's and LlamaIndex's loaders, dicts, or pairs of id and text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from semel.errors import BadInputError
from semel.sync.document import Document, Listed, document_id, json_value


class Objects:
    """An iterable of documents. Each is one of

    - a LangChain document, whose id is its `id`, else the `id` or the `source` in its metadata;
    - a LlamaIndex document, whose id is the `file_path` in its metadata, else its `id_`;
    - a dict with `id`, `text`, and perhaps `version`; its other fields are its payload;
    - a pair of id and text.

    If several documents of a loader have the same source, as the pages of a PDF have, `#` and a number follow it.

    Args:
        documents: read once.
    """  # noqa: D415  # a list follows

    threads = 2

    def __init__(self, documents: Iterable[Any]) -> None:
        self._documents = documents

    def list(self) -> Iterator[Listed]:
        """The documents, with their content; see `Source`."""
        numbers: Counter[str] = Counter()
        for position, given in enumerate(self._documents):
            try:
                yield _listed(given, numbers)
            except BadInputError as error:
                yield Listed(None, error=f"document {position}: {error}")

    def read(self, listed: Listed) -> Document:
        """The document that was listed; see `Source`."""
        assert listed.document is not None
        return listed.document

    def is_current(self, document: Document) -> bool:  # noqa: ARG002  # there is no way to ask
        """See `Source`."""
        return True


def _listed(given: Any, numbers: Counter[str]) -> Listed:
    version: str | None = None
    if isinstance(given, Mapping):
        fields = dict(given)
        found, text, version = fields.pop("id", None), fields.pop("text", None), fields.pop("version", None)
    elif isinstance(given, tuple) and len(given) == 2:
        (found, text), fields = given, {}
    elif hasattr(given, "page_content"):
        fields = dict(given.metadata or {})
        text = given.page_content
        found = getattr(given, "id", None) or fields.get("id") or _numbered(fields.get("source"), numbers)
    elif hasattr(given, "get_content"):
        fields, text = dict(given.metadata or {}), given.get_content()
        found = _numbered(fields.get("file_path"), numbers) or getattr(given, "id_", None)
    else:
        raise BadInputError(
            f"a {type(given).__name__} is no document; give a dict with id and text, a pair of them, or a document of "
            "LangChain or LlamaIndex"
        )
    known_id = document_id(found)
    if known_id is None:
        raise BadInputError("it has no id, without which nothing is found again; give each document one")
    if not isinstance(text, str):
        return Listed(known_id, error=f"its text is {type(text).__name__}, not a string")
    known = None if version is None else str(json_value(version))
    payload = {str(name): json_value(value) for name, value in fields.items()}
    return Listed(known_id, known, Document(known_id, known, text, payload))


def _numbered(source: Any, numbers: Counter[str]) -> str | None:
    if not source:
        return None
    numbers[str(source)] += 1
    number = numbers[str(source)] - 1
    return f"{source}#{number}" if number else str(source)
