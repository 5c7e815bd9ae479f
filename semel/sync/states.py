"""The state of syncs, for the command line and the page."""

from dataclasses import asdict
from typing import Any

from semel.sync.ledger import Collection, Ledger, Sync


def state_of(ledger: Ledger, sync: Sync, *, runs: int = 10) -> dict[str, Any]:
    """A sync with its collections and its last runs, as JSON. Times are Unix seconds."""
    return {
        "object": "sync",
        "name": sync.name,
        "source": sync.source,
        "sink": sync.sink,
        "running": sync.running,
        "created_at": sync.created_at,
        "collections": [_collection(each, sync) for each in ledger.collections(sync.name)],
        "runs": [{**asdict(each), "report": dict(each.report)} for each in ledger.runs(sync.name, limit=runs)],
    }


def _collection(each: Collection, sync: Sync) -> dict[str, Any]:
    return {
        "name": each.name,
        "model": each.model,
        "fingerprint": each.fingerprint.hex(),
        "dimensions": each.dim,
        "documents": each.documents,
        "chunks": each.chunks,
        "state": state_name(each, sync),
        "created_at": each.created_at,
        "filled_at": each.filled_at,
        "retired_at": each.retired_at,
    }


def state_name(each: Collection, sync: Sync) -> str:
    """`serving`, `retired` (kept for a rollback), `ready` (for a cutover) or `filling`."""
    if each.id == sync.serving:
        return "serving"
    if each.retired_at is not None:
        return "retired"
    return "filling" if each.filled_at is None else "ready"
