"""The tables of the ledger, in one MetaData with those of the cache, for the migrations."""

from sqlalchemy import Column, Float, Index, Integer, LargeBinary, String, Table, Text

from semel.cache.schema import metadata

syncs = Table(
    "syncs",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("source", Text, nullable=False),
    Column("sink", Text, nullable=False),  # without its password
    Column("serving", Integer),  # the collection that the alias or view names
    Column("lease_owner", String(40)),
    Column("lease_until", Float, nullable=False, server_default="0"),
    Column("created_at", Float, nullable=False),
)

sync_collections = Table(
    "sync_collections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sync", String(100), nullable=False),
    Column("name", String(200), nullable=False),  # in the sink
    Column("model", String(200), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("filled_at", Float),  # the end of the last run that left it in step
    Column("retired_at", Float),  # when another collection took its place
    Index("ix_sync_collections_sync", "sync"),
)

sync_documents = Table(
    "sync_documents",
    metadata,
    Column("collection_id", Integer, primary_key=True),
    Column("key", LargeBinary(16), primary_key=True),
    Column("id", Text, nullable=False),
    Column("version", Text),
    Column("content", LargeBinary(32), nullable=False),
    Column("payload", LargeBinary(8), nullable=False),
    Column("pending", Integer),  # chunks of a write whose confirmation is not recorded
    Column("chunks", LargeBinary, nullable=False),
)

sync_runs = Table(
    "sync_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("sync", String(100), nullable=False),
    Column("collection_id", Integer),
    Column("outcome", String(20), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("report_json", Text, nullable=False),
    Index("ix_sync_runs_sync", "sync", "id"),
)
