"""Whether a job waits or fails without a worker for its vector space, and the device to which it returns."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("first_device", sa.String(100)))
        jobs.add_column(sa.Column("if_no_worker", sa.String(10), nullable=False, server_default="wait"))
