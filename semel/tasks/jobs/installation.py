"""Which database this is: what belongs to one database must not be used with another one."""

from sqlalchemy import select

from semel.db import Database
from semel.tasks.jobs.schema import installation


def installation_id(db: Database) -> str:
    """The identity that the database got when its tables were made. Raises UnavailableError."""
    with db.read() as conn:
        return conn.execute(select(installation.c.id)).scalar_one()
