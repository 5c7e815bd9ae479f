"""The tables of jobs, in one MetaData with those of the cache, for the migrations."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    false,
    text,
)

from semel.cache.schema import metadata

IS_ACTIVE = text("status IN ('validating', 'in_progress')")
"""The jobs whose chunks may be worked on, word for word as in the index over them: it is used for no other spelling."""

_IS_RUNNING = text("state = 'running'")

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("model", String(200), nullable=False),
    Column("prompt_name", String(200), nullable=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("dim", Integer, nullable=False),
    Column("lane", String(20), nullable=False),
    Column("device", String(100), nullable=False),
    Column("why", Text, nullable=False),
    Column("waits", Boolean, nullable=False, server_default=false()),  # no live worker serves its vector space
    Column("truncate", Boolean, nullable=False),
    Column("first_device", String(100)),  # the device to return to after a failover
    Column("if_no_worker", String(10), nullable=False, server_default="wait"),
    Column("owner", String(20), nullable=False, server_default=""),  # whose key submitted it; owners share a queue
    Column("share", Float, nullable=False, server_default="1"),  # the owner's part of the queue, next to other owners
    Column("namespace", String(64), nullable=False, server_default=""),  # of the key that made it
    Column("private", Boolean, nullable=False, server_default=false()),  # its vectors are in the namespace, too
    Column("variant", String(200), nullable=False, server_default=""),  # of its vector space, as JSON
    Column("variant_fingerprint", LargeBinary(32)),  # what its keys were made with, if it has a variant
    Column("kind", String(20), nullable=False, server_default="embed"),  # what its model computes
    Column("head", Text, nullable=False, server_default=""),  # from stored logits to scores, as JSON
    Column("turn_at", Float, nullable=False, server_default="0"),  # when a chunk was last sent; at first, created_at
    Column("total", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("chunks_done", Integer, nullable=False),
    Column("hit", BigInteger, nullable=False),
    Column("computed", BigInteger, nullable=False),
    Column("coalesced", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("truncated", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("unread", BigInteger, nullable=False, server_default="0"),  # about the tokens that were cut off
    Column("touched_at", Float, nullable=False),  # the last activity of its upload
    Column("expires_at", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("in_progress_at", Float),
    Column("finalizing_at", Float),
    Column("completed_at", Float),
    Column("failed_at", Float),
    Column("expired_at", Float),
    Column("cancelling_at", Float),
    Column("cancelled_at", Float),
    Column("first_result_at", Float),
    Column("retried_at", Float),
    Column("error_json", Text),
    Column("metadata_json", Text, nullable=False),
    Column("traceparent", String(55)),  # of the request that created it, if that was traced
    Index("ix_jobs_status", "status", "lane", "device"),
    Index("ix_jobs_created", "created_at", "id"),
    Index("ix_jobs_expiry", "expires_at"),
    Index(
        "ix_jobs_turns",
        "lane",
        "device",
        "fingerprint",
        "owner",
        "turn_at",
        "id",
        sqlite_where=IS_ACTIVE,
        postgresql_where=IS_ACTIVE,
    ),
)

chunks = Table(
    "chunks",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("state", String(10), nullable=False),  # rows.ChunkState
    Column("attempts", Integer, nullable=False),  # how often it was leased
    Column("tries", Integer, nullable=False, server_default="0"),  # how often a worker began it; see Suspects.turn
    Column("sent_at", Float),
    Column("lease_owner", String(200)),
    Column("lease_until", Float),
    Column("first_index", BigInteger, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("weight", Float, nullable=False, server_default="1"),  # its work, in full chunks; see rows.NewChunk
    Column("outcomes", LargeBinary),  # one byte per text, see rows.OUTCOME_CODES
    Column("errors_json", Text, nullable=False),
    Column("packed_keys", LargeBinary, nullable=False),  # 32 bytes per text, zero for a text that has no key
    Column("payload", LargeBinary, nullable=False),  # zstd of the JSON list of texts
    Column("extras", LargeBinary),  # zstd of the JSON list of ids and other fields; null if there are none
    Column("suspect", Integer),  # where the texts begin that were last computed alone: this chunk may kill workers
    Column("suspect_end", Integer),  # where they end
    Column("suspect_starts", Integer, nullable=False, server_default="0"),  # how often they were begun
    Index("ix_chunks_state", "state", "job_id", "position"),
    Index("ix_chunks_leases", "lease_until", sqlite_where=_IS_RUNNING, postgresql_where=_IS_RUNNING),
)

installation = Table(
    "installation",  # one row, made by a migration: which database this is
    metadata,
    Column("id", String(40), primary_key=True),
    Column("created_at", Float),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("owner", String(40), nullable=False),
    Column("job_id", String(40)),
    Column("digest", LargeBinary(32)),  # SHA-256 of the submission; null while it is being received
    Column("created_at", Float, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("job_id", String(40), primary_key=True),
    Column("url", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float),  # null: delivered, or given up
    Column("last_error", Text),
    Index("ix_webhooks_due", "due_at"),
)

files = Table(
    "files",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("purpose", String(20), nullable=False),
    Column("filename", String(300), nullable=False),
    Column("namespace", String(64), nullable=False, server_default=""),  # of the key that made it
    Column("owner", String(20), nullable=False, server_default=""),  # the key itself, for its quota
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Index("ix_files_created", "created_at", "id"),
)

key_use = Table(
    "key_use",
    metadata,
    Column("owner", String(20), primary_key=True),
    Column("used_at", Float, nullable=False),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("purpose", String(20), nullable=False),
    Column("filename", String(300), nullable=False),
    Column("namespace", String(64), nullable=False, server_default=""),  # of the key that made it
    Column("owner", String(20), nullable=False, server_default=""),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("file_expires_s", Float),
    Column("file_id", String(40)),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("upload_id", String(40), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("ix_upload_parts_upload", "upload_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("status", String(20), nullable=False),
    Column("namespace", String(64), nullable=False, server_default=""),  # of the key that made it
    Column("private", Boolean, nullable=False, server_default=false()),  # its vectors are in the namespace, too
    Column("endpoint", String(40), nullable=False),
    Column("model", String(200)),
    Column("input_file_id", String(40), nullable=False),
    Column("output_file_id", String(40)),
    Column("error_file_id", String(40)),
    Column("completion_window", String(10), nullable=False),
    Column("output_expires_s", Float),
    Column("metadata_json", Text, nullable=False),
    Column("errors_json", Text, nullable=False),
    Column("jobs_json", Text, nullable=False),  # ids of its jobs, once every line is in one
    Column("inputs", BigInteger, nullable=False),  # texts and pairs in all lines
    Column("total", Integer, nullable=False),  # lines
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("owner", String(20), nullable=False, server_default=""),  # as in `jobs`, for the jobs of the batch
    Column("share", Float, nullable=False, server_default="1"),
    Column("lease_owner", String(40)),
    Column("lease_until", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("in_progress_at", Float),
    Column("finalizing_at", Float),
    Column("completed_at", Float),
    Column("failed_at", Float),
    Column("expired_at", Float),
    Column("cancelling_at", Float),
    Column("cancelled_at", Float),
    Index("ix_batches_status", "status"),
    Index("ix_batches_created", "created_at", "id"),
)
