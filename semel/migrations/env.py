"""Runs the migrations on the connection that `Database.upgrade` opened and locked."""

from alembic import context

import semel.sync.ledger.schema
import semel.tasks.jobs.schema  # noqa: F401  # both add their tables to the metadata
from semel.cache.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
