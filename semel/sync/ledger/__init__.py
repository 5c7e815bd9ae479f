"""What is in each index: which documents, in which version, in which chunks. Keys and digests, never vectors."""

from semel.sync.ledger.ledger import Ledger
from semel.sync.ledger.records import Collection, KnownDocument, Sync, SyncRun, Written

__all__ = ["Collection", "KnownDocument", "Ledger", "Sync", "SyncRun", "Written"]
