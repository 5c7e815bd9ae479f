"""A collection of Qdrant: `qdrant://HOST[:PORT]/NAME`, `qdrants://…` for TLS, or `qdrant:FOLDER/NAME` without a server.

`NAME` is an alias of the collection that answers. The API key of a server is the setting `qdrant_api_key`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import numpy as np

from semel.errors import BadInputError, ConflictError, NotFoundError, UnavailableError
from semel.sync.document import Payload
from semel.sync.sinks.base import Keeps, Layout, Match, Rows, check_where
from semel.values.vectors import Vectors, unit_rows

_AT_A_TIME = 256
"""Points in one request: some hundred kilobytes."""

_TIMEOUT_S = 60


def open_client(address: str, *, api_key: str | None) -> tuple[Any, str]:
    """The client of an address, and the name in it.

    Raises:
        BadInputError: the address has no name.
        UnavailableError: qdrant-client is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise UnavailableError("Qdrant needs pip install 'semel[qdrant]'") from None
    if "://" not in address:
        path = Path(address.partition(":")[2]).expanduser()
        return QdrantClient(path=str(path.parent)), path.name
    parts = urlsplit(address)
    name = parts.path.strip("/")
    if not parts.hostname or not name:
        raise BadInputError(f"{address!r} names no collection: write qdrant://HOST/NAME")
    client = QdrantClient(
        host=parts.hostname,
        port=parts.port or 6333,
        https=parts.scheme == "qdrants",
        api_key=api_key,
        timeout=_TIMEOUT_S,
        check_compatibility=False,
    )
    return client, name


class QdrantSink:
    """The collections of a server, or of a folder.

    Args:
        client: of qdrant-client.
        alias: the sync's own name.
    """

    def __init__(self, client: Any, alias: str) -> None:
        self._client = client
        self._alias = alias

    def open(self, name: str, layout: Layout, *, make: bool = False) -> "QdrantCollection":
        """See `Sink`."""
        from qdrant_client import models

        if not _asked(self._client.collection_exists, name):
            if not make:
                raise NotFoundError("collection", name)
            vectors = models.VectorParams(size=layout.dim, distance=models.Distance.COSINE)
            _asked(self._client.create_collection, name, vectors_config=vectors)
        size = _asked(self._client.get_collection, name).config.params.vectors.size
        if size != layout.dim:
            raise BadInputError(f"Qdrant's collection {name!r} has {size} dimensions, not {layout.dim}")
        return QdrantCollection(self._client, name, layout)

    def serving(self) -> str | None:
        """See `Sink`."""
        aliases = _asked(self._client.get_aliases).aliases
        return next((each.collection_name for each in aliases if each.alias_name == self._alias), None)

    def serve(self, name: str) -> None:
        """See `Sink`."""
        from qdrant_client import models

        if self.serving() is None and _asked(self._client.collection_exists, self._alias):
            raise ConflictError(f"Qdrant has a collection named {self._alias!r}, so the index needs another name")
        steps: list[Any] = []
        if self.serving() is not None:
            steps.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._alias)))
        create = models.CreateAlias(collection_name=name, alias_name=self._alias)
        steps.append(models.CreateAliasOperation(create_alias=create))
        _asked(self._client.update_collection_aliases, change_aliases_operations=steps)

    def drop(self, name: str) -> None:
        """See `Sink`."""
        _asked(self._client.delete_collection, name)  # with its alias

    def close(self) -> None:
        """See `Sink`."""
        self._client.close()


class QdrantCollection:
    """One collection; see `SinkCollection`."""

    keeps: Keeps = "direction"

    def __init__(self, client: Any, name: str, layout: Layout) -> None:
        self._client = client
        self._name = name
        self._layout = layout

    def write(self, rows: Rows) -> None:
        """See `SinkCollection`."""
        from qdrant_client import models

        payloads = [
            {**payload, "document": document, "chunk": number, "text": text}
            for payload, document, number, text in zip(
                rows.payloads, rows.documents, rows.numbers, rows.texts, strict=True
            )
        ]
        ids = [str(each) for each in rows.ids]
        if rows.vectors is None:
            self._overwrite(ids, payloads)
            return
        vectors = rows.vectors.tolist()
        for at in range(0, len(ids), _AT_A_TIME):
            one = slice(at, at + _AT_A_TIME)
            points = models.Batch(ids=ids[one], vectors=vectors[one], payloads=payloads[one])
            _asked(self._client.upsert, self._name, points=points, wait=True)

    def _overwrite(self, ids: list[str], payloads: list[dict[str, Any]]) -> None:
        """Replace the payloads of those points that there are: Qdrant refuses the others."""
        from qdrant_client import models

        for at in range(0, len(ids), _AT_A_TIME):
            one = slice(at, at + _AT_A_TIME)
            there = _asked(self._client.retrieve, self._name, ids=ids[one], with_payload=False)
            known = {point.id for point in there}
            steps = [
                models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[each]))
                for each, payload in zip(ids[one], payloads[one], strict=True)
                if each in known
            ]
            if steps:
                _asked(self._client.batch_update_points, self._name, update_operations=steps, wait=True)

    def delete(self, ids: Sequence[UUID]) -> None:
        """See `SinkCollection`."""
        from qdrant_client import models

        for at in range(0, len(ids), _AT_A_TIME):
            points = models.PointIdsList(points=[str(each) for each in ids[at : at + _AT_A_TIME]])
            _asked(self._client.delete, self._name, points_selector=points, wait=True)

    def read(self, ids: Sequence[UUID] | None = None) -> Iterator[tuple[list[UUID], Vectors | None]]:
        """See `SinkCollection`."""
        if ids is None:
            offset: Any = None
            while True:
                points, offset = _asked(
                    self._client.scroll, self._name, limit=_AT_A_TIME, offset=offset, with_payload=False
                )
                yield [UUID(point.id) for point in points], None
                if offset is None:
                    return
        for at in range(0, len(ids), _AT_A_TIME):
            part = [str(each) for each in ids[at : at + _AT_A_TIME]]
            points = _asked(self._client.retrieve, self._name, ids=part, with_payload=False, with_vectors=True)
            if points:
                yield [UUID(point.id) for point in points], np.array([point.vector for point in points], np.float32)

    def search(self, vector: Vectors, *, k: int, where: Payload) -> list[Match]:
        """See `SinkCollection`."""
        check_where(where, self._layout.payload)
        query = unit_rows(vector[None])[0].tolist()
        found = _asked(self._client.query_points, self._name, query=query, limit=k, query_filter=_filter(where))
        return [_match(point, self._layout) for point in found.points]

    def finish(self) -> None:
        """See `SinkCollection`: Qdrant builds its index by itself."""


def _match(point: Any, layout: Layout) -> Match:
    payload = {name: point.payload.get(name) for name in layout.payload}
    own = point.payload
    return Match(UUID(point.id), own["document"], own["chunk"], own["text"], payload, float(point.score))


def _filter(where: Payload) -> Any:
    """Fields that are equal to a text, or to what the text means as JSON: a number or a truth value."""
    from qdrant_client import models

    def equal(name: str, value: Any) -> Any:
        texts: list[Any] = [str(value)]
        if texts[0].lstrip("-").isdigit():
            texts.append(int(texts[0]))
        if texts[0] in ("true", "false"):
            texts.append(texts[0] == "true")
        same = [models.FieldCondition(key=name, match=models.MatchValue(value=each)) for each in texts]
        return models.Filter(should=same)

    return models.Filter(must=[equal(name, value) for name, value in where.items()]) if where else None


def _asked(method: Any, *args: Any, **named: Any) -> Any:
    """The answer of Qdrant. Raises UnavailableError, or BadInputError if it refuses the request."""
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    try:
        return method(*args, **named)
    except ResponseHandlingException as error:
        raise UnavailableError(f"Qdrant does not answer: {error}") from None
    except UnexpectedResponse as error:
        message = f"Qdrant refused the request: {error}"
        raise (BadInputError if error.status_code and error.status_code < 500 else UnavailableError)(message) from None
