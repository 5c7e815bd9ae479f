"""When the first chunk of a job was done, and when it was last retried."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("first_result_at", sa.Float))
        jobs.add_column(sa.Column("retried_at", sa.Float))
