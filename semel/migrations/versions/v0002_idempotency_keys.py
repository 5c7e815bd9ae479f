"""Idempotency keys of submissions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("owner", sa.String(40), nullable=False),
        sa.Column("job_id", sa.String(40)),
        sa.Column("digest", sa.LargeBinary(32)),
        sa.Column("created_at", sa.Float(), nullable=False),
    )
