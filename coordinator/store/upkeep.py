"""The upkeep of the database itself: its size, what holds back its cleaning, and the lease of a node."""

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
       (SELECT coalesce(max(age(backend_xmin)), 0) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()) AS by_session,
       (SELECT coalesce(max(age(backend_xmin)), 0) FROM pg_stat_activity
         WHERE backend_type = 'walsender') AS by_standby,
       (SELECT coalesce(max(greatest(age(xmin), age(catalog_xmin))), 0) FROM pg_replication_slots) AS by_slot,
       (SELECT coalesce(max(age(transaction)), 0) FROM pg_prepared_xacts
         WHERE database = current_database()) AS by_prepared,
       (SELECT extract(epoch FROM lease_until - clock_timestamp())::float8 FROM node WHERE boot = $1) AS lease"""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Bytes on disk, rows that wait to be cleaned away; seconds: of the oldest open transaction, left of the lease.

    `by_…`: transactions since the oldest snapshot that is held by a session with an open transaction, by a standby that
    answers queries (`hot_standby_feedback`), by a replication slot that nobody reads, by a prepared transaction that
    nobody ends.  What was deleted or changed since cannot be cleaned away.
    """

    bytes: int
    dead_rows: int
    oldest_transaction: float
    by_session: int
    by_standby: int
    by_slot: int
    by_prepared: int
    lease: float


async def upkeep(db: Connection, boot: Boot) -> Upkeep:
    """Look at the database, and at the lease of that start of a node; costs a look at each of its files."""
    return Upkeep(**await db.fetchrow(_UPKEEP, boot))
