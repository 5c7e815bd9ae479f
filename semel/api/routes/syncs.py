"""/v1/syncs: the indexes that follow documents, and which of their collections answers."""

from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import BaseModel, Field

from semel.api.deps import ServicesDep
from semel.api.edge.access import sees
from semel.api.edge.keys import Scope
from semel.api.edge.traits import DialectRouter, audited, needs
from semel.api.services import Services
from semel.errors import NotFoundError
from semel.sync.ledger import Ledger
from semel.sync.opened import exclusively
from semel.sync.states import state_of
from semel.sync.switching import cutover, rollback

router = DialectRouter(tags=["Syncs"], needs=Scope.READ)

_LISTED_RUNS = 5

Collection = Annotated[
    str | None,
    Query(
        max_length=200, description="The name of the collection; by default the one that was filled or answered last."
    ),
]


class CollectionObject(BaseModel):
    """The index of a sync for one model. Times are Unix seconds."""

    name: str = Field(description="In the sink.")
    model: str
    fingerprint: str
    dimensions: int
    documents: int
    chunks: int
    state: Literal["serving", "ready", "filling", "retired"]
    created_at: float
    filled_at: float | None = Field(description="The end of the last run that left it in step; null before.")
    retired_at: float | None


class RunObject(BaseModel):
    """One run of a sync. Times are Unix seconds."""

    id: int
    sync: str
    collection_id: int | None
    outcome: Literal["running", "done", "incomplete", "refused", "failed"]
    started_at: float
    ended_at: float | None
    report: dict[str, Any] = Field(description="The plan and what became of it, as 'semel sync run --json' prints it.")


class SyncObject(BaseModel):
    """An index that follows documents."""

    object: Literal["sync"] = "sync"
    name: str
    source: str
    sink: str = Field(description="Without its password.")
    running: bool
    created_at: float
    collections: list[CollectionObject]
    runs: list[RunObject] = Field(description="The last ones, the newest first.")


class SyncList(BaseModel):
    """All syncs in the server's database."""

    object: Literal["list"] = "list"
    data: list[SyncObject]


@router.get("/v1/syncs")
def list_syncs(request: Request, services: ServicesDep) -> SyncList:
    """List the syncs in the server's database. For a key with a namespace there are none."""
    ledger = Ledger(services.stores.db)
    syncs = ledger.syncs() if _are_visible(request) else []
    return SyncList(data=[_object(state_of(ledger, sync, runs=_LISTED_RUNS)) for sync in syncs])


@router.get("/v1/syncs/{name}")
def get_sync(request: Request, services: ServicesDep, name: str) -> SyncObject:
    """Return one sync with its collections and its last runs."""
    if not _are_visible(request):
        raise NotFoundError("sync", name)
    ledger = Ledger(services.stores.db)
    return _object(state_of(ledger, ledger.sync(name)))


@router.post("/v1/syncs/{name}/cutover")
@needs(Scope.ADMIN)
@audited
def cut_over(services: ServicesDep, name: str, collection: Collection = None) -> SyncObject:
    """Let the collection of the new model answer, after its counts and a sample of its vectors agree."""
    return _switched(services, name, cutover, collection)


@router.post("/v1/syncs/{name}/rollback")
@needs(Scope.ADMIN)
@audited
def roll_back(services: ServicesDep, name: str, collection: Collection = None) -> SyncObject:
    """Let the collection answer that answered before the last cutover."""
    return _switched(services, name, rollback, collection)


def _switched(services: Services, name: str, switch: Any, collection: str | None) -> SyncObject:
    Ledger(services.stores.db).sync(name)  # an unknown one is a 404
    with exclusively(services.settings, services.stores.db, name) as opened:
        switch(opened, services.stores.vectors, collection)
        return _object(state_of(opened.ledger, opened.sync))


def _are_visible(request: Request) -> bool:
    """Whether the caller sees what belongs to the whole server."""
    return not sees(request)


def _object(state: dict[str, Any]) -> SyncObject:
    return SyncObject.model_validate(state)
