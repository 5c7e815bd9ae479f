"""What a command needs to embed documents: the database, the model, and its tokenizer."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from semel.cache.catalog import prompt_for
from semel.chunking import Chunker
from semel.client import Client
from semel.db import Database
from semel.errors import BadInputError
from semel.local import Local
from semel.settings import Settings
from semel.sync.embedding import Embedding, LocalEmbedding, RemoteEmbedding, model_source
from semel.values.sync import SyncEntry


@contextmanager
def database(settings: Settings) -> Iterator[Database]:
    """The database of the settings, migrated. Raises UnavailableError, SchemaError."""
    with closing(Database(settings.database, max_bytes=settings.database_max_bytes)) as db:
        db.upgrade()
        yield db


@dataclass(frozen=True)
class Place:
    """Where documents are embedded.

    Attributes:
        url: of a server; None for this process.
        device: of this process; `auto` for that of the settings.
    """

    url: str | None = None
    device: str = "auto"


@contextmanager
def embedding(settings: Settings, place: Place, model: str | None, *, label: str) -> Iterator[Embedding]:
    """The model of a sync, here or on a server.

    Args:
        model: None for the default of this process or of the server.
        label: the name of the sync.

    Raises:
        UnknownModelError, ModelLoadError, BadInputError: the model cannot be used.
        UnavailableError: the server does not answer.
    """
    if place.url is None:
        with Local(device=place.device, settings=settings) as here:
            yield LocalEmbedding(here, model or settings.default_model)
    else:
        with Client(place.url) as client:
            yield RemoteEmbedding(client, model, label=label)


def chunker_for(settings: Settings, entry: SyncEntry, model: Embedding) -> Chunker:
    """Splits by the tokens of a model, whose files must be on this machine.

    Raises:
        BadInputError: the sizes cannot be had, or the server's model has other files than that of this machine.
        UnknownModelError, ModelLoadError: the model is not configured here, or its files are not here.
    """
    source = model_source(settings, model.model)
    prompt = source.described.prompts[prompt_for("document", source.described.prompts)]
    if replace(source.described.spec, prompt=prompt).fingerprint != model.fingerprint:
        raise BadInputError(
            f"documents are split here, with the tokenizer of {model.model!r}, but the server's {model.model!r} has "
            "other files; give both the same source in semel.toml, or run the command on the server's machine"
        )
    return Chunker(source, entry.chunk, prompt=prompt)
