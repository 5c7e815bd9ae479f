"""Uploaded files, batches of them, webhooks, and the other columns of a job's texts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("filename", sa.String(300), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float()),
    )
    op.create_index("ix_files_created", "files", ["created_at", "id"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("endpoint", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("input_file_id", sa.String(40), nullable=False),
        sa.Column("output_file_id", sa.String(40)),
        sa.Column("error_file_id", sa.String(40)),
        sa.Column("completion_window", sa.String(10), nullable=False),
        sa.Column("output_expires_s", sa.Float()),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("errors_json", sa.Text(), nullable=False),
        sa.Column("jobs_json", sa.Text(), nullable=False),
        sa.Column("inputs", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("lease_owner", sa.String(40)),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("in_progress_at", sa.Float()),
        sa.Column("finalizing_at", sa.Float()),
        sa.Column("completed_at", sa.Float()),
        sa.Column("failed_at", sa.Float()),
        sa.Column("expired_at", sa.Float()),
        sa.Column("cancelling_at", sa.Float()),
        sa.Column("cancelled_at", sa.Float()),
    )
    op.create_index("ix_batches_status", "batches", ["status"])
    op.create_index("ix_batches_created", "batches", ["created_at", "id"])
    op.create_table(
        "webhooks",
        sa.Column("job_id", sa.String(40), primary_key=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Float()),
        sa.Column("last_error", sa.Text()),
    )
    op.create_index("ix_webhooks_due", "webhooks", ["due_at"])
    op.add_column("chunks", sa.Column("extras", sa.LargeBinary()))
