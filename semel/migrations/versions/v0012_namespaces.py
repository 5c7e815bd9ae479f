"""Namespaces: whose jobs, files and batches these are, and whether their vectors are kept apart."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for table in ("jobs", "files", "batches"):
        op.add_column(table, sa.Column("namespace", sa.String(64), nullable=False, server_default=""))
    for table in ("jobs", "batches"):
        op.add_column(table, sa.Column("private", sa.Boolean, nullable=False, server_default=sa.false()))
