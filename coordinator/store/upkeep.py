"""The upkeep of the database itself: its size, what holds up its cleaning, and the lease of a node."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.model import Boot
from coordinator.store.pool import Connection

# Without pg_read_all_stats a role sees only its own transactions, which are the nodes'.
_UPKEEP = """
SELECT pg_database_size(current_database()) AS bytes,
       (SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables) AS dead_rows,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
       ) AS oldest_transaction,
       (SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM node WHERE boot = $1) AS lease"""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Bytes on disk, rows that wait to be cleaned away; seconds: of the oldest open transaction, left of the lease."""

    bytes: int
    dead_rows: int
    oldest_transaction: float
    lease: float


async def upkeep(db: Connection, boot: Boot) -> Upkeep:
    """Look at the database, and at the lease of that start of a node; costs a look at each of its files."""
    return Upkeep(**await db.fetchrow(_UPKEEP, boot))
