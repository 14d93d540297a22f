"""Deleting what strangers can make grow, a little at a time.

Every table of the database, and what bounds it, stands in `deploy/README.md`; a test holds that none is missing.
"""

from __future__ import annotations

from coordinator.store.pool import Connection

AT_ONCE = 5000
"""Rows that one statement deletes, or looks at where no index tells which."""

KEPT_SESSIONS = 200_000
"""Ended sessions that are kept, the newest: a week of them where fewer than 20 a minute end."""

KEPT_LINES = 100_000
"""Lines of the activity log that are kept of each action that clients cause themselves."""

KEPT_RETURNS = 200_000
"""Buckets given back that are remembered: who gave so many back since may be offered one of them again."""

KEPT_BLOCKS = 100_000
"""Blocks of addresses whose newcomers' give-backs are remembered."""

KEPT_STARTS = 10_000
"""Starts of nodes that are kept, the newest: one that ends as often as it is started again must not fill a table."""

ACTIONS_OF_CLIENTS = ("client.register", "client.unregister", "client.idle", "client.health")
"""Actions that clients cause, and as often as they like."""

# A client without any result goes after a day in which it was not there, with all that is known of it; its id is free
# again then.  One that an admin deactivated stays, and so does the deactivation.  Of each page of clients, by id.
# Rows are named by arrays here: a join would be planned as if a page were a tenth of its table, and read all of it.
_LOCK_IDLE_CLIENTS = """
WITH page AS MATERIALIZED (
    SELECT client_id FROM client WHERE client_id > $1 ORDER BY client_id LIMIT $2),
idle AS MATERIALIZED (
    SELECT c.client_id FROM client c
     WHERE c.client_id = ANY (ARRAY (SELECT client_id FROM page))
       AND c.registered_at < now() - interval '1 day' AND c.deactivated IS NULL
       AND NOT EXISTS (SELECT FROM membership m
                        WHERE m.client_id = c.client_id
                          AND (m.settled > 0 OR m.inactive = 'admin' OR m.last_access > now() - interval '1 day'))
       AND NOT EXISTS (SELECT FROM session s WHERE s.client_id = c.client_id AND s.ended_at IS NULL)
       AND NOT EXISTS (SELECT FROM bucket b WHERE b.client_id = c.client_id)
       AND NOT EXISTS (SELECT FROM notice n WHERE n.client_id = c.client_id)  -- which nodes know by its id
       AND NOT EXISTS (SELECT FROM claim k WHERE k.client_id = c.client_id AND (k.settled > 0 OR k.parts > 0))
       FOR UPDATE OF c SKIP LOCKED)
SELECT ARRAY (SELECT client_id FROM idle) AS idle, max(client_id) AS last FROM page"""

# A statement of its own, which sees who came back before its client was locked; from then on nobody does.
_FORGET_CLIENTS = """
WITH idle AS MATERIALIZED (
    SELECT client_id FROM unnest($1::text[]) AS c (client_id)
     WHERE NOT EXISTS (SELECT FROM session s WHERE s.client_id = c.client_id AND s.ended_at IS NULL)
       AND NOT EXISTS (SELECT FROM membership m
                        WHERE m.client_id = c.client_id AND m.last_access > now() - interval '1 day')),
memberships AS (
    DELETE FROM membership WHERE client_id = ANY (ARRAY (SELECT client_id FROM idle))),
blocks AS (
    DELETE FROM return_block WHERE client_id = ANY (ARRAY (SELECT client_id FROM idle)))
DELETE FROM client WHERE client_id = ANY (ARRAY (SELECT client_id FROM idle))"""

# Claims through which nothing came tell for a month who had a bucket when; then they go.  Of each page, by number.
_FORGET_CLAIMS = """
WITH page AS MATERIALIZED (
    SELECT claim_id, settled = 0 AND parts = 0 AND ended_at < now() - interval '30 days' AS over
      FROM claim WHERE claim_id > $1 ORDER BY claim_id LIMIT $2),
gone AS (
    DELETE FROM claim WHERE claim_id = ANY (ARRAY (SELECT claim_id FROM page WHERE over)))
SELECT max(claim_id) AS last FROM page"""

_FORGET_SESSIONS = """
DELETE FROM session WHERE session_id = ANY (ARRAY (
    SELECT session_id FROM session
     WHERE ended_at < greatest(now() - interval '7 days',
                               (SELECT ended_at FROM session WHERE ended_at IS NOT NULL
                                 ORDER BY ended_at DESC OFFSET $2 LIMIT 1))
     ORDER BY ended_at LIMIT $1 FOR UPDATE SKIP LOCKED))"""

_FORGET_RETURNS = """
DELETE FROM return_block WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM return_block
     WHERE until < greatest(now() - interval '1 day',
                            (SELECT until FROM return_block ORDER BY until DESC OFFSET $2 LIMIT 1))
     ORDER BY until LIMIT $1 FOR UPDATE SKIP LOCKED))"""

_FORGET_BLOCKS = """
DELETE FROM newcomer_block WHERE ctid = ANY (ARRAY (
    SELECT ctid FROM newcomer_block
     WHERE last_at < greatest(now() - interval '1 day',
                              (SELECT last_at FROM newcomer_block ORDER BY last_at DESC OFFSET $2 LIMIT 1))
     ORDER BY last_at LIMIT $1 FOR UPDATE SKIP LOCKED))"""

_FORGET_NOTICES = """
DELETE FROM notice WHERE notice_id = ANY (ARRAY (
    SELECT notice_id FROM notice WHERE until <= now() ORDER BY notice_id LIMIT $1 FOR UPDATE SKIP LOCKED))"""

_FORGET_NODES = """
DELETE FROM node WHERE boot = ANY (ARRAY (
    SELECT boot FROM node
     WHERE state = 'gone'
       AND (lease_until < now() - interval '30 days'
            OR boot <= (SELECT boot FROM node ORDER BY boot DESC OFFSET $2 LIMIT 1))
     ORDER BY boot LIMIT $1 FOR UPDATE SKIP LOCKED))"""

_FORGET_LINES = """
WITH bound AS MATERIALIZED (
    SELECT at, activity_id FROM activity WHERE action = $1 ORDER BY at DESC, activity_id DESC OFFSET $3 LIMIT 1),
gone AS MATERIALIZED (
    SELECT a.at, a.activity_id FROM activity a, bound
     WHERE a.action = $1 AND a.at <= bound.at AND (a.at, a.activity_id) <= (bound.at, bound.activity_id)
     ORDER BY a.at, a.activity_id LIMIT $2)
DELETE FROM activity a USING gone WHERE a.at = gone.at AND a.activity_id = gone.activity_id"""


async def forget_clients(db: Connection, after: str) -> str:
    """Forget clients that never settled anything and were not there for a day; returns where to go on, '' at the end.

    Looks at the next `AT_ONCE` clients behind the id `after`; within a transaction.
    """
    page = await db.fetchrow(_LOCK_IDLE_CLIENTS, after, AT_ONCE)
    if page["idle"]:
        await db.execute(_FORGET_CLIENTS, page["idle"])
    return page["last"] or ""


async def forget_claims(db: Connection, after: int) -> int:
    """Forget claims of a month ago through which nothing came; returns where to go on, 0 at the end."""
    return int(await db.fetchval(_FORGET_CLAIMS, after, AT_ONCE) or 0)


async def forget_sessions(db: Connection, kept: int = KEPT_SESSIONS) -> int:
    """Forget connections that ended a week ago, or before the newest `kept`; results name their session without them.

    Returns how many; fewer than `AT_ONCE` if there are no more.
    """
    return _count(await db.execute(_FORGET_SESSIONS, AT_ONCE, kept - 1))


async def forget_returns(db: Connection, kept: int = KEPT_RETURNS) -> int:
    """Forget which buckets clients gave back, a day after these might be offered to them again, or beyond `kept`.

    Returns how many.
    """
    return _count(await db.execute(_FORGET_RETURNS, AT_ONCE, kept - 1))


async def forget_blocks(db: Connection, kept: int = KEPT_BLOCKS) -> int:
    """Forget what newcomers of some addresses gave back a day ago, or before the newest `kept`; returns how many."""
    return _count(await db.execute(_FORGET_BLOCKS, AT_ONCE, kept - 1))


async def forget_notices(db: Connection) -> int:
    """Forget messages of operators that have ended; returns how many."""
    return _count(await db.execute(_FORGET_NOTICES, AT_ONCE))


async def forget_nodes(db: Connection, kept: int = KEPT_STARTS) -> int:
    """Forget starts of nodes that ended a month ago, or before the newest `kept`; returns how many."""
    return _count(await db.execute(_FORGET_NODES, AT_ONCE, kept))


async def forget_lines(db: Connection, kept: int = KEPT_LINES) -> int:
    """Forget lines of the activity log that clients caused, but for the newest `kept` of each action; returns how many.

    What admins did stays as long as the log is kept.
    """
    gone = [_count(await db.execute(_FORGET_LINES, action, AT_ONCE, kept)) for action in ACTIONS_OF_CLIENTS]
    return max(gone)


def _count(status: str) -> int:
    return int(status.split()[-1])
