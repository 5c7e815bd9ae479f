"""Connections to PostgreSQL: how long they wait, for a server that may have vanished and for locks of others."""

from typing import Any

CONNECT_TIMEOUT_S = 5
"""PostgreSQL answers within milliseconds, or is not there."""

STATEMENT_TIMEOUT_S = 600
"""Statements take milliseconds, except counting a cache of many million rows and what is `unlimited`."""

IDLE_TIMEOUT_S = 60
"""A transaction in which nothing happens for this long belongs to a process that hangs, and holds its locks."""

LOCK_TIMEOUT_S = 30
"""Somebody else's open transaction must not hold semel for ever; a prune holds its lock for some seconds."""

HALF_OPEN = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
"""libpq's settings (seconds, a number of probes, milliseconds): a server that vanished is noticed within 25 s."""

UNLIMITED = "; ".join(
    f"SET LOCAL {name} = 0" for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
)


def set_timeouts(connection: Any, _record: Any) -> None:
    """Bound the waits of a new connection to PostgreSQL. They are no startup options, which PgBouncer refuses."""
    connection.autocommit = True  # or the settings would end with the first rollback
    for name, seconds in (
        ("statement_timeout", STATEMENT_TIMEOUT_S),
        ("lock_timeout", LOCK_TIMEOUT_S),
        ("idle_in_transaction_session_timeout", IDLE_TIMEOUT_S),
    ):
        connection.execute(f"SET {name} = '{seconds * 1000:.0f}ms'")
    connection.autocommit = False


BINARY_ROWS = {"semel_binary": True}
"""Execution options of a statement whose rows are sent in binary: bytes would be sent as two digits each."""


def send_binary(_conn: Any, cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:  # noqa: FBT001  # SQLAlchemy's event
    """Have the rows of a statement sent in binary, if its options ask for it; for `before_cursor_execute`."""
    if context is not None and context.execution_options.get("semel_binary"):
        from psycopg.pq import Format

        cursor.format = Format.BINARY
