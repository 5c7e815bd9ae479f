"""The ledger of syncs: documents that an index follows."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.create_table(
        "syncs",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("sink", sa.Text, nullable=False),
        sa.Column("serving", sa.Integer),
        sa.Column("lease_owner", sa.String(40)),
        sa.Column("lease_until", sa.Float, nullable=False, server_default="0"),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "sync_collections",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sync", sa.String(100), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("spec_json", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("filled_at", sa.Float),
        sa.Column("retired_at", sa.Float),
    )
    op.create_index("ix_sync_collections_sync", "sync_collections", ["sync"])
    op.create_table(
        "sync_documents",
        sa.Column("collection_id", sa.Integer, primary_key=True),
        sa.Column("key", sa.LargeBinary(16), primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("content", sa.LargeBinary(32), nullable=False),
        sa.Column("payload", sa.LargeBinary(8), nullable=False),
        sa.Column("pending", sa.Integer),
        sa.Column("chunks", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sync_runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("sync", sa.String(100), nullable=False),
        sa.Column("collection_id", sa.Integer),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        sa.Column("report_json", sa.Text, nullable=False),
    )
    op.create_index("ix_sync_runs_sync", "sync_runs", ["sync", "id"])
