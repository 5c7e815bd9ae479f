"""The first schema: spaces, producers, vectors, models, jobs, chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "spaces",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("prompt_name", sa.String(200), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("max_tokens", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(20), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "producers",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("backend", sa.String(100), nullable=False),
        sa.Column("dtype", sa.String(20), nullable=False),
        sa.UniqueConstraint("device", "backend", "dtype", name="uq_producers"),
    )
    op.create_table(
        "vectors",
        sa.Column("key", sa.LargeBinary(32), primary_key=True),
        sa.Column("space_id", sa.Integer(), nullable=False),
        sa.Column("producer_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("crc", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_vectors_space_created", "vectors", ["space_id", "created_at"])
    op.create_table(
        "models",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("prompt_name", sa.String(200), primary_key=True),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("max_tokens", sa.Integer(), nullable=False),
        sa.Column("precision", sa.String(20), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("matryoshka_dims", sa.Text(), nullable=False),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("prompt_name", sa.String(200), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("lane", sa.String(20), nullable=False),
        sa.Column("device", sa.String(100), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("truncate", sa.Boolean(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("chunks_done", sa.Integer(), nullable=False),
        sa.Column("hit", sa.BigInteger(), nullable=False),
        sa.Column("computed", sa.BigInteger(), nullable=False),
        sa.Column("coalesced", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("truncated", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("touched_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("in_progress_at", sa.Float()),
        sa.Column("finalizing_at", sa.Float()),
        sa.Column("completed_at", sa.Float()),
        sa.Column("failed_at", sa.Float()),
        sa.Column("expired_at", sa.Float()),
        sa.Column("cancelling_at", sa.Float()),
        sa.Column("cancelled_at", sa.Float()),
        sa.Column("error_json", sa.Text()),
        sa.Column("metadata_json", sa.Text(), nullable=False),
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_status", "jobs", ["status", "lane", "device"])
    op.create_table(
        "chunks",
        sa.Column("job_id", sa.String(40), primary_key=True),
        sa.Column("position", sa.Integer(), primary_key=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.Float()),
        sa.Column("lease_owner", sa.String(200)),
        sa.Column("lease_until", sa.Float()),
        sa.Column("first_index", sa.BigInteger(), nullable=False),
        sa.Column("texts", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.LargeBinary()),
        sa.Column("errors_json", sa.Text(), nullable=False),
        sa.Column("packed_keys", sa.LargeBinary(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_chunks_state", "chunks", ["state", "job_id", "position"])
    if op.get_bind().dialect.name == "postgresql":
        # Vectors do not compress, so PostgreSQL must not try (TOAST).
        op.execute("ALTER TABLE vectors ALTER COLUMN data SET STORAGE EXTERNAL")
