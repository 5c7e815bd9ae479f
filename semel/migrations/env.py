"""Runs the migrations on the connection that `Database.upgrade` opened and locked."""

from alembic import context

from semel.tasks.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
