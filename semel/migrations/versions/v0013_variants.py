"""How a job departs from its model's definition, what it computes, and how its logits become scores."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("variant", sa.String(200), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("variant_fingerprint", sa.LargeBinary(32)))
    op.add_column("jobs", sa.Column("kind", sa.String(20), nullable=False, server_default="embed"))
    op.add_column("jobs", sa.Column("head", sa.Text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("unread", sa.BigInteger, nullable=False, server_default="0"))
    op.execute("UPDATE jobs SET kind = 'cross-encoder' WHERE dim = 1")
