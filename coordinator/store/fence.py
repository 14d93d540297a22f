"""The fence around claims in a database that lost what came last: restored from a backup, or after a failover.

What was handed out behind the point that such a database knows would be handed out again under the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from coordinator.errors import ConfigError
from coordinator.store import nodes
from coordinator.store.pool import Connection

CLAIMS_SKIPPED = 1 << 40
"""Claim numbers that are left out: more than a database gives in a year at 19,000 a second, the most ever measured.

JSON carries numbers up to 2^53 exactly, which is enough to do so 8,000 times.
"""

NUMBERS_SKIPPED = 1 << 36
"""Numbers of items, and places among the changes, that are left out: none known outside comes to mean another."""

BOOTS_SKIPPED = 1 << 20
"""Starts of nodes that are left out, so that none that still runs takes the lease of a new one for its own."""

_FENCE_TIMEOUT = 600.0  # seconds; a bucket that is held costs a look or two

# $1 claims, $2 items, $3 starts of nodes that are left out; of changes of results as many as of claims, since readers
# may have read some that are lost, and go on behind them.  The other sequences only get past what is there.
_SKIP = """
SELECT setval(sequence, greatest(last, highest, 0) + ahead)
  FROM (SELECT sequence, last, highest,
               CASE sequence WHEN 'claim_number'::regclass THEN $1::bigint
                             WHEN pg_get_serial_sequence('change', 'position')::regclass THEN $1::bigint
                             WHEN pg_get_serial_sequence('item', 'item_id')::regclass THEN $2::bigint
                             WHEN pg_get_serial_sequence('change', 'position')::regclass THEN $2
                             WHEN pg_get_serial_sequence('node', 'boot')::regclass THEN $3::bigint
                             ELSE 0 END AS ahead
          FROM numbering()) n
 WHERE ahead > 0 OR highest > coalesce(last, 0)"""

_END_NODES = "UPDATE node SET state = 'gone' WHERE state <> 'gone'"

# It is nobody's failure.  A client that comes back in time may recollect, under a new number.
_FREE = """
SELECT count(*) FROM free_buckets(ARRAY (SELECT bucket_id FROM bucket WHERE state IN ('claimed', 'dead')
                                          ORDER BY bucket_id FOR UPDATE), 'crashed', 0, '', 0)"""

_NEXT_CLAIM = "SELECT pg_sequence_last_value('claim_number') + 1"

_BEHIND = "SELECT sequence::text, last, highest FROM numbering() WHERE highest > coalesce(last, 0) LIMIT 1"


@dataclass(frozen=True, slots=True)
class Fence:
    """A fence that stands: buckets that were held and are free now, and the lowest number of claims to come."""

    freed: int
    claims_from: int


async def raise_fence(db: Connection) -> Fence:
    """Let every claim that was handed out so far end, and begin with numbers beyond all; within a transaction.

    Nodes that still run on this database lose their leases by it, and end.

    Raises:
        ConfigError: the role may not do so.
    """
    try:
        await db.execute(_SKIP, CLAIMS_SKIPPED, NUMBERS_SKIPPED, BOOTS_SKIPPED)
    except asyncpg.InsufficientPrivilegeError as failure:
        raise ConfigError(f"database: expected the role that owns it, not that of the nodes: {failure}") from failure
    await db.execute(_END_NODES)
    await nodes.end_sessions(db)
    freed = await db.fetchval(_FREE, timeout=_FENCE_TIMEOUT)
    return Fence(freed, await db.fetchval(_NEXT_CLAIM))


async def check_sequences(db: Connection) -> None:
    """Check that no sequence would give a number that is taken, as after a copy of the rows alone.

    Raises:
        ConfigError: one would; the message says which, and what to do.
    """
    row = await db.fetchrow(_BEHIND)
    if row is not None:
        raise ConfigError(
            f"database: its sequence {row['sequence']} stands at {row['last']}, and {row['highest']} is taken already, "
            "as where rows were copied without their sequences; coordinator db fence mends it"
        )
