"""The use of each vector space: look-ups, hits, device time saved, and the time of the last use."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    with op.batch_alter_table("spaces") as spaces:
        spaces.add_column(sa.Column("lookups", sa.BigInteger, nullable=False, server_default="0"))
        spaces.add_column(sa.Column("hits", sa.BigInteger, nullable=False, server_default="0"))
        spaces.add_column(sa.Column("saved_s", sa.Float, nullable=False, server_default="0"))
        spaces.add_column(sa.Column("used_at", sa.Float))
