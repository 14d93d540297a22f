"""The databases of the tests, on one server: clones of a migrated one, and one of them is used again and again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from coordinator.prepare import prepare_database
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database

TEMPLATE = "coordinator_template"

SHARED = "coordinator_test"

_OF_MIGRATIONS = ("INSERT INTO migration ", "INSERT INTO key_form ", "SELECT")
"""How statements begin that restore what the migrations made."""

TRUNCATE_ABOVE = 4_000_000
"""Bytes of tables above which they are truncated; with less it is quicker to delete their rows."""

_TABLES = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"""

_ROWS = """
SELECT format('INSERT INTO {0} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{0}, %L)',
              json_agg(t)) FROM {0} t HAVING count(*) > 0"""

_SEQUENCES = """
SELECT format('SELECT setval(%L, %s, %L)', format('%I.%I', schemaname, sequencename),
              coalesce(last_value, start_value), last_value IS NOT NULL) FROM pg_sequences"""

_END_OTHERS = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""

# Everything but rows that a test may have changed: what there is in which schema, columns, options and settings.
_SHAPE = """
SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM (
    SELECT concat_ws(' ', c.relname, c.relkind, c.relnamespace, c.reloptions) AS line
      FROM pg_class c WHERE c.oid >= 16384 AND c.relpersistence = 'p' AND c.relkind <> 't'
       AND c.relname NOT LIKE 'pg_toast%'
    UNION ALL
    SELECT concat_ws(' ', a.attrelid, a.attname, a.atttypid, a.attnotnull)
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
     WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND c.relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', nspname, 'schema') FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT concat_ws(' ', proname, md5(prosrc)) FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT concat_ws(' ', tgrelid, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat_ws(' ', conrelid, conname) FROM pg_constraint WHERE oid >= 16384
    UNION ALL
    SELECT concat_ws(' ', 'set', setconfig) FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
     WHERE d.datname = current_database()) shape"""

_SIZE = """
SELECT coalesce(sum(pg_relation_size(oid)), 0) FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"""


def beside(dsn: str, name: str) -> str:
    """The DSN of another database on the same server."""
    head, _, query = dsn.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


class Databases:
    """The databases of one server; `dsn` is that of the server's own."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._tables: list[str] = []
        self._seed: list[str] = []
        self._shape: str | None = None

    async def make_template(self) -> None:
        """Make TEMPLATE, migrated, with its first services, and note its rows."""
        await self._execute(f"CREATE DATABASE {TEMPLATE}")
        database = Database(beside(self.dsn, TEMPLATE))
        await database.open()
        await migrate.migrate(database, tables_of(load_plugins()))
        await database.close()
        await prepare_database(database.dsn, None)

        async with _connected(database.dsn) as db:
            self._tables = [row["relname"] for row in await db.fetch(_TABLES)]
            rows = [await db.fetchval(_ROWS.format(table)) for table in self._tables]
            sequences = [row[0] for row in await db.fetch(_SEQUENCES)]
            self._seed = [*filter(None, rows), *sequences]

    async def create(self, name: str, template: str = TEMPLATE) -> str:
        """Clone a database; its DSN."""
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return beside(self.dsn, name)

    async def drop(self, name: str) -> None:
        """Drop a database, if it is there, and end the connections to it."""
        await self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def shared(self, *, empty: bool = False) -> str:
        """The DSN of SHARED, as a new clone would be, or without a row but those of the migrations.

        Emptied where that is enough. If a test has changed more than rows, it is cloned anew.
        """
        dsn = beside(self.dsn, SHARED)
        if self._shape is not None:
            async with _connected(dsn) as db:
                await db.execute(_END_OTHERS)
                if await db.fetchval(_SHAPE) == self._shape:
                    await self._restore(db, empty)
                    return dsn

        await self.drop(SHARED)
        await self.create(SHARED)
        async with _connected(dsn) as db:
            self._shape = await db.fetchval(_SHAPE)
            if empty:
                await self._restore(db, empty)
        return dsn

    async def _restore(self, db: Any, empty: bool) -> None:
        """Put the rows back; triggers and foreign keys are not asked, since all goes and all comes."""
        if await db.fetchval(_SIZE) > TRUNCATE_ABOVE:
            clear = [f"TRUNCATE {', '.join(self._tables)}"]
        else:
            clear = [f"DELETE FROM {table}" for table in self._tables]
        seed = [line for line in self._seed if not empty or line.startswith(_OF_MIGRATIONS)]
        await db.execute(";\n".join(["SET session_replication_role = replica", *clear, *seed]))

    async def _execute(self, statement: str) -> None:
        async with _connected(self.dsn) as db:
            await db.execute(statement)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
