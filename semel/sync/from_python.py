"""`semel.sync.run`: the documents of Python code to an index."""

from collections.abc import Callable, Iterable
from typing import Any

from semel.log import configure_logs
from semel.settings import Settings, load_settings
from semel.sync.connecting import Place, chunker_for, database, embedding
from semel.sync.opened import exclusively, planning
from semel.sync.report import Plan, Report
from semel.sync.running import RunOptions
from semel.sync.running import run as run_sync
from semel.sync.sinks import index_name
from semel.sync.sources import Objects, Source, open_source
from semel.values.sync import ChunkOptions, SyncEntry


def run(
    *,
    source: str | Iterable[Any],
    sink: str,
    name: str | None = None,
    model: str | None = None,
    payload: Iterable[str] = (),
    chunk_tokens: int | None = None,
    chunk_overlap: int = 0,
    chunk_characters: int | None = None,
    max_delete: str = "10%",
    dry_run: bool = False,
    url: str | None = None,
    device: str = "auto",
    settings: Settings | None = None,
    on_planned: Callable[[Plan], None] = lambda _plan: None,
) -> Report:
    """Bring an index in step with documents: what is new or changed is embedded, what is gone is deleted.

    Args:
        source: all documents, each time: of LangChain's or LlamaIndex's loaders, dicts with `id` and `text`, or pairs
            of them; or an address, as in semel.toml.
        sink: where the vectors go, as in semel.toml.
        name: of the sync; by default that of the index.
        model: a name from semel.toml, or of the server; None for the default.
        payload: fields of the documents that the index keeps.
        chunk_tokens, chunk_overlap, chunk_characters: how long documents are split, as in semel.toml.
        max_delete: stop, if the documents are fewer by more than this.
        dry_run: plan, and write nothing.
        url: of a server that embeds; None for this process.
        device: of this process.
        settings: instead of those of the environment and of semel.toml.
        on_planned: called with the plan before anything is written.

    Returns:
        What was planned and done. Documents that cannot be read or embedded are listed in its `failures`.

    Raises:
        TooManyDeletedError: more documents are gone than `max_delete` allows; nothing was written.
        ConflictError: another run of this name is under way.
        BadInputError: an argument, or the documents, cannot be used.
        UnavailableError: the sink, the database or the server does not answer.
    """
    if settings is None:
        settings = load_settings()
        configure_logs(level="warning", fmt=settings.log_format)
    entry = SyncEntry(
        source=source if isinstance(source, str) else "(documents of a program)",
        sink=sink,
        model=model,
        payload=tuple(payload),
        chunk=ChunkOptions(chunk_tokens, chunk_overlap, chunk_characters),
        max_delete=max_delete,
    )
    documents = open_source(entry) if isinstance(source, str) else Objects(source)
    place = Place(url, device)
    options = RunOptions(dry_run=dry_run, on_planned=on_planned)
    return run_entry(settings, name or index_name(sink), entry, documents, place, options)


def run_entry(
    settings: Settings, name: str, entry: SyncEntry, documents: Source, place: Place, options: RunOptions
) -> Report:
    """Run a sync once. Raises as `run`."""
    with (
        database(settings) as db,
        embedding(settings, place, entry.model, label=name) as model,
        (planning if options.dry_run else exclusively)(settings, db, name, entry) as opened,
    ):
        return run_sync(opened, documents, model, chunker_for(settings, entry, model), options)
