"""Tables of PostgreSQL with pgvector: `postgresql://…/DATABASE?table=NAME`, and `&type=vector` for float32.

A collection is a table, whose vectors are `halfvec` unless the address asks for `vector`. `NAME` is a view of the table
that answers.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import numpy as np

from semel.errors import BadInputError, ConflictError, NotFoundError, UnavailableError
from semel.sync.document import Payload
from semel.sync.sinks.base import Keeps, Layout, Match, Rows, check_where
from semel.values.vectors import Vectors

_CONNECT_TIMEOUT_S = 10

_MOST_INDEXED = {"halfvec": 4000, "vector": 2000}
"""The greatest number of dimensions of an HNSW index. Source: pgvector's documentation."""

_COLUMNS = ("id", "document", "chunk", "text", "payload", "vector")


class PgVectorSink:
    """Tables in one database.

    Args:
        url: of psycopg.
        name: of the view, perhaps with its schema.
        kind: `halfvec` or `vector`.

    Raises:
        UnavailableError: the server does not answer, or a package or the extension is missing.
    """

    def __init__(self, url: str, name: str, kind: str) -> None:
        try:
            import pgvector.psycopg
            import psycopg
        except ImportError:
            raise UnavailableError("PostgreSQL as a sink needs pip install 'semel[pgvector]'") from None
        if kind not in _MOST_INDEXED:
            raise BadInputError(f"the type of the vectors must be halfvec or vector, not {kind!r}")
        schema, _, view = name.rpartition(".")
        self._schema, self._view, self._kind = schema or "public", view, kind
        with _translated("cannot be reached"):
            self._conn = psycopg.connect(url, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S)
        with _translated("has no pgvector, and this user may not create it (CREATE EXTENSION vector)"):
            if not self._conn.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                self._conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
            pgvector.psycopg.register_vector(self._conn)
            (version,) = self._conn.execute(
                "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            ).fetchone() or ("0",)
            self._scans_on = [int(part) for part in version.split(".")[:2]] >= [0, 8]

    def open(self, name: str, layout: Layout, *, make: bool = False) -> "PgVectorCollection":
        """See `Sink`."""
        from psycopg import sql

        table = sql.Identifier(self._schema, name)
        create = sql.SQL(
            "CREATE TABLE IF NOT EXISTS {} (id uuid PRIMARY KEY, document text NOT NULL, chunk int NOT NULL, "
            "text text NOT NULL, payload jsonb NOT NULL, vector {}({}) NOT NULL)"
        )
        with _translated(f"did not make table {name!r}"):
            there = self._conn.execute("SELECT to_regclass(%s)", [table.as_string(self._conn)]).fetchone()
            if not make and there == (None,):
                raise NotFoundError("table", name)
            self._conn.execute(create.format(table, sql.SQL(self._kind), sql.Literal(layout.dim)))
            query = (
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
                "WHERE attrelid = %s::regclass AND attname = 'vector'"
            )
            found = self._conn.execute(query, [table.as_string(self._conn)]).fetchone()
        expected = f"{self._kind}({layout.dim})"
        if not found or found[0].rpartition(".")[2] != expected:
            raise BadInputError(
                f"table {name!r} has no column {expected} for vectors but {found and found[0]}; give the index another "
                "name, or the address the type that it has"
            )
        return PgVectorCollection(self._conn, table, self._kind, layout, scans_on=self._scans_on)

    def serving(self) -> str | None:
        """See `Sink`: the table that the view selects from."""
        query = (
            "SELECT DISTINCT t.relname FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid "
            "JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' JOIN pg_namespace n ON n.oid = v.relnamespace "
            "JOIN pg_class t ON t.oid = d.refobjid AND t.relkind = 'r' WHERE n.nspname = %s AND v.relname = %s"
        )
        with _translated("does not answer"):
            found = self._conn.execute(query, [self._schema, self._view]).fetchone()
        return None if found is None else str(found[0])

    def serve(self, name: str) -> None:
        """See `Sink`. The view keeps its grants; other views on it would be lost, so they are refused."""
        from psycopg import sql

        view = sql.Identifier(self._schema, self._view)
        with _translated(f"did not move the view {self._view!r}"), self._conn.transaction():
            kind = self._conn.execute("SELECT relkind FROM pg_class WHERE oid = to_regclass(%s)", [self._quoted()])
            found = kind.fetchone()
            if found and found[0] not in ("v", b"v"):
                raise ConflictError(f"{self._view!r} is a table that no sync made; give the index another name")
            grants = self._conn.execute(
                "SELECT DISTINCT privilege_type, grantee FROM information_schema.role_table_grants "
                "WHERE table_schema = %s AND table_name = %s AND grantee <> current_user",
                [self._schema, self._view],
            ).fetchall()
            self._conn.execute(sql.SQL("DROP VIEW IF EXISTS {}").format(view))
            table = sql.Identifier(self._schema, name)
            self._conn.execute(sql.SQL("CREATE VIEW {} AS SELECT * FROM {}").format(view, table))
            for privilege, grantee in grants:
                to = sql.SQL("PUBLIC") if grantee == "PUBLIC" else sql.Identifier(grantee)
                self._conn.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(privilege), view, to))

    def _quoted(self) -> str:
        from psycopg import sql

        return sql.Identifier(self._schema, self._view).as_string(self._conn)

    def drop(self, name: str) -> None:
        """See `Sink`."""
        from psycopg import sql

        with _translated(f"did not drop table {name!r}"), self._conn.transaction():
            if self.serving() == name:
                self._conn.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier(self._schema, self._view)))
            self._conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self._schema, name)))

    def close(self) -> None:
        """See `Sink`."""
        self._conn.close()


class PgVectorCollection:
    """One table; see `SinkCollection`.

    Args:
        scans_on: whether this pgvector (0.8) goes on until enough rows meet a condition.
    """

    def __init__(self, conn: Any, table: Any, kind: str, layout: Layout, *, scans_on: bool) -> None:
        self._scans_on = scans_on
        self.keeps: Keeps = "float16" if kind == "halfvec" else "float32"
        self._conn = conn
        self._table = table
        self._kind = kind
        self._layout = layout

    def write(self, rows: Rows) -> None:
        """See `SinkCollection`: by COPY into a temporary table, and from there in one statement."""
        from psycopg import sql

        names = [name for name in _COLUMNS if rows.vectors is not None or name != "vector"]
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        changed = sql.SQL(", ").join(
            sql.SQL("{0} = {1}.{0}").format(sql.Identifier(name), sql.SQL("staged")) for name in names[1:]
        )
        with _translated(f"did not store {len(rows)} rows"), self._conn.transaction():
            self._stage(rows, names, columns)
            if rows.vectors is None:
                update = sql.SQL("UPDATE {} AS kept SET {} FROM staged WHERE kept.id = staged.id")
                self._conn.execute(update.format(self._table, changed))
                return
            excluded = sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(n)) for n in names[1:])
            insert = sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM staged ON CONFLICT (id) DO UPDATE SET {2}")
            self._conn.execute(insert.format(self._table, columns, excluded))

    def _stage(self, rows: Rows, names: list[str], columns: Any) -> None:
        from pgvector import HalfVector, Vector
        from psycopg import sql
        from psycopg.types.json import Jsonb

        stage = sql.SQL("CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {} FROM {} WITH NO DATA")
        self._conn.execute(stage.format(columns, self._table))
        number = HalfVector if self._kind == "halfvec" else Vector
        vectors: list[Any] = [] if rows.vectors is None else [[number(row)] for row in rows.vectors]
        types = ["uuid", "text", "int4", "text", "jsonb", self._kind][: len(names)]
        copying = sql.SQL("COPY staged ({}) FROM STDIN (FORMAT BINARY)").format(columns)
        with self._conn.cursor() as cursor, cursor.copy(copying) as copy:
            copy.set_types(types)
            for i in range(len(rows)):
                own = [rows.ids[i], rows.documents[i], rows.numbers[i], rows.texts[i], Jsonb(dict(rows.payloads[i]))]
                copy.write_row([*own, *(vectors[i] if vectors else [])])

    def delete(self, ids: Sequence[UUID]) -> None:
        """See `SinkCollection`."""
        from psycopg import sql

        with _translated(f"did not delete {len(ids)} rows"):
            self._conn.execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table), [list(ids)])

    def read(self, ids: Sequence[UUID] | None = None) -> Iterator[tuple[list[UUID], Vectors | None]]:
        """See `SinkCollection`."""
        from psycopg import sql

        with _translated("does not answer"):
            if ids is None:
                with self._conn.transaction(), self._conn.cursor("semel_ids") as cursor:
                    cursor.execute(sql.SQL("SELECT id FROM {}").format(self._table))
                    while rows := cursor.fetchmany(10_000):
                        yield [row[0] for row in rows], None
                return
            query = sql.SQL("SELECT id, vector FROM {} WHERE id = ANY(%s)").format(self._table)
            found = self._conn.execute(query, [list(ids)], binary=True).fetchall()
        if found:
            yield [row[0] for row in found], np.stack([_numbers(row[1]) for row in found])

    def search(self, vector: Vectors, *, k: int, where: Payload) -> list[Match]:
        """See `SinkCollection`."""
        from pgvector import HalfVector, Vector
        from psycopg import sql

        check_where(where, self._layout.payload)
        asked = (HalfVector if self._kind == "halfvec" else Vector)(vector)
        condition = sql.SQL(" AND ").join([sql.SQL("payload ->> %s = %s")] * len(where) or [sql.SQL("true")])
        query = sql.SQL(
            "SELECT id, document, chunk, text, payload, 1 - (vector <=> %s) FROM {} WHERE {} "
            "ORDER BY vector <=> %s LIMIT %s"
        ).format(self._table, condition)
        filters = [part for name, value in where.items() for part in (name, str(value))]
        with _translated("does not answer"), self._conn.transaction():
            if where and self._scans_on:
                self._conn.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            self._conn.execute(sql.SQL("SET LOCAL hnsw.ef_search = {}").format(sql.Literal(min(1000, max(40, 4 * k)))))
            found = self._conn.execute(query, [asked, *filters, asked, k]).fetchall()
        return [Match(each, doc, n, text, payload, float(score)) for each, doc, n, text, payload, score in found]

    def finish(self) -> None:
        """Build the HNSW index after the first fill; PostgreSQL keeps it up to date from then on."""
        from psycopg import sql

        if self._layout.dim > _MOST_INDEXED[self._kind]:
            return
        with _translated("did not build its index"):
            name = sql.Identifier(f"{self._table._obj[-1]}_hnsw")
            index = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector {})")
            kind = sql.SQL(f"{self._kind}_cosine_ops")
            self._conn.execute(index.format(name, self._table, kind))
            by_document = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (document)")
            self._conn.execute(by_document.format(sql.Identifier(f"{self._table._obj[-1]}_document"), self._table))
            self._conn.execute(sql.SQL("ANALYZE {}").format(self._table))


def _numbers(value: Any) -> Vectors:
    numbers: Vectors = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value, np.float32)
    return numbers


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Raises UnavailableError or BadInputError for an error of PostgreSQL."""
    import psycopg

    try:
        yield
    except psycopg.DataError as error:
        raise BadInputError(f"the sink's PostgreSQL {what}: {_first_line(error)}") from None
    except psycopg.Error as error:
        raise UnavailableError(f"the sink's PostgreSQL {what}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
