"""A flag for jobs that no live worker serves; before, the last words of the column `why` stood for it."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("waits", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute(sa.text("UPDATE jobs SET waits = true WHERE why LIKE '%it waits for one'"))
