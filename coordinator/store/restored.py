"""A database before and after a backup was loaded into it."""

from __future__ import annotations

from coordinator.errors import ConfigError
from coordinator.store.pool import Connection

_ANY_TABLE = """
SELECT min(c.oid::regclass::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""

_SCHEMA_OF_LEDGER = """
SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'migration' AND relkind = 'r' LIMIT 1"""

_IS_FOUND = "SELECT to_regclass('migration') IS NOT NULL"

# A backup is loaded without rights, and a new function may be called by all.
_CLOSE_DEFINERS = """
DO $$
DECLARE
    definer     regprocedure;
BEGIN
    FOR definer IN SELECT oid::regprocedure FROM pg_proc
                    WHERE prosecdef AND pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', definer);
    END LOOP;
END $$"""

_TABLES = """
SELECT format('%I.%I', nspname, relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"""

_SCAN_TIMEOUT = 3600.0  # seconds


async def any_table(db: Connection) -> str | None:
    """Name a table or the like that the database has; None if it is empty."""
    found: str | None = await db.fetchval(_ANY_TABLE)
    return found


async def check(db: Connection) -> None:
    """Check that what was loaded is this program's, and that it is found; nobody but the owner may run its functions.

    Raises:
        ConfigError: it is not; the message says what was expected.
    """
    if not await db.fetchval(_IS_FOUND):
        schema = await db.fetchval(_SCHEMA_OF_LEDGER)
        if schema is None:
            raise ConfigError("The backup is not of a coordinator: expected a table migration in it")
        raise ConfigError(f"The backup's tables are in the schema {schema}: expected it on this role's search_path")
    await db.execute(_CLOSE_DEFINERS)


async def analyze(db: Connection) -> None:
    """Let the planner know the tables: statistics are not part of a backup."""
    await db.execute("ANALYZE", timeout=_SCAN_TIMEOUT)


async def count_rows(db: Connection) -> dict[str, int]:
    """Count the rows of every table, exactly; costs a scan of each."""
    tables = [row["name"] for row in await db.fetch(_TABLES)]
    return {table: await db.fetchval(f"SELECT count(*) FROM {table}", timeout=_SCAN_TIMEOUT) for table in tables}
