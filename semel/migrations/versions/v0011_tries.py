"""How often the texts of a chunk were worked on: it may also have waited in a worker that died."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("chunks", sa.Column("tries", sa.Integer, nullable=False, server_default="0"))
    op.execute(sa.text("UPDATE chunks SET tries = attempts"))
