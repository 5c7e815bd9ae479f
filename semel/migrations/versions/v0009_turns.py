"""Whose turn it is: owner, share and last turn of each job, the weight of each chunk, and an index over open jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_OPEN = sa.text("status IN ('validating', 'in_progress')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("owner", sa.String(20), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("share", sa.Float, nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("turn_at", sa.Float, nullable=False, server_default="0"))
    op.execute(sa.text("UPDATE jobs SET turn_at = created_at"))
    op.add_column("batches", sa.Column("owner", sa.String(20), nullable=False, server_default=""))
    op.add_column("batches", sa.Column("share", sa.Float, nullable=False, server_default="1"))
    op.add_column("chunks", sa.Column("weight", sa.Float, nullable=False, server_default="1"))
    op.create_index(
        "ix_jobs_turns",
        "jobs",
        ["lane", "device", "fingerprint", "owner", "turn_at", "id"],
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
