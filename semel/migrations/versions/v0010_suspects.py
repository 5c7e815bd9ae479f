"""Texts that may kill a worker, indexes for the sweeps, and the identity of the database."""

import time
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.add_column("chunks", sa.Column("suspect", sa.Integer))
    op.add_column("chunks", sa.Column("suspect_end", sa.Integer))
    op.add_column("chunks", sa.Column("suspect_starts", sa.Integer, nullable=False, server_default="0"))
    op.create_index(
        "ix_chunks_leases", "chunks", ["lease_until"], sqlite_where=_RUNNING, postgresql_where=_RUNNING
    )
    op.create_index("ix_jobs_expiry", "jobs", ["expires_at"])
    installation = op.create_table(
        "installation", sa.Column("id", sa.String(40), primary_key=True), sa.Column("created_at", sa.Float)
    )
    op.bulk_insert(installation, [{"id": uuid.uuid4().hex, "created_at": time.time()}])
