"""Alembic's entry point: uses the connection that `runs_db.migrate` hands over, in one transaction."""

from alembic import context

from runs_db.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
