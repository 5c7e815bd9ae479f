"""The sink that an address names."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from semel.errors import BadInputError
from semel.sync.addresses import without_password
from semel.sync.sinks.base import Sink
from semel.sync.sinks.lance import LanceSink
from semel.sync.sinks.parquet import ParquetSink
from semel.sync.sinks.pgvector import PgVectorSink
from semel.sync.sinks.qdrant import QdrantSink, open_client
from semel.values.sync import SYNC_NAME

_KNOWN = (
    "parquet:FOLDER/NAME, lancedb:FOLDER/NAME, postgresql://USER@HOST/DATABASE?table=NAME, qdrant://HOST/NAME or "
    "qdrant:FOLDER/NAME"
)

_OPTIONS = ("table", "type")
"""Parts of the query of PostgreSQL's address that are semel's; the others are psycopg's."""


def open_sink(address: str, *, qdrant_api_key: str | None = None) -> Sink:
    """The sink at an address.

    Raises:
        BadInputError: it is no address of a sink.
        UnavailableError: the sink does not answer, or its package is not installed.
    """
    kind = _kind(address)
    _check_name(index_name(address))
    if kind == "parquet":
        return ParquetSink(_path(address))
    if kind == "lancedb":
        return LanceSink(_path(address))
    if kind == "postgresql":
        url, options = _postgresql(address)
        return PgVectorSink(url, options["table"], options.get("type", "halfvec"))
    client, name = open_client(address, api_key=qdrant_api_key)
    return QdrantSink(client, name)


def index_name(address: str) -> str:
    """The name of the index in an address. Raises BadInputError."""
    kind = _kind(address)
    if kind == "postgresql":
        return _postgresql(address)[1]["table"].rpartition(".")[2]
    return urlsplit(address).path.rstrip("/").rpartition("/")[2]


def shown_sink(address: str) -> str:
    """An address without its password; a path is made absolute, so that it means the same in every folder."""
    kind = _kind(address)
    if "://" not in address:
        return f"{kind}:{_path(address)}"
    return without_password(address)


def _kind(address: str) -> str:
    kind = address.partition(":")[0]
    kind = {"postgres": "postgresql", "qdrants": "qdrant"}.get(kind, kind)
    if ":" not in address or kind not in ("parquet", "lancedb", "postgresql", "qdrant"):
        raise BadInputError(f"{address!r} is no sink; write {_KNOWN}")
    return kind


def _path(address: str) -> Path:
    return Path(address.partition(":")[2]).expanduser().absolute()


def _check_name(name: str) -> None:
    if not SYNC_NAME.fullmatch(name):
        raise BadInputError(f"an index cannot be named {name!r}: use at most 40 letters, digits, - and _")


def _postgresql(address: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(address)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if not options.get("table"):
        raise BadInputError("PostgreSQL's address needs the name of a table: postgresql://HOST/DATABASE?table=NAME")
    rest = "&".join(part for part in parts.query.split("&") if part.partition("=")[0] not in _OPTIONS)
    return urlunsplit(parts._replace(scheme="postgresql", query=rest)), options
