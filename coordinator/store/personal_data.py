"""All that is kept of one client: read page by page, and erased."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.model import ClientId
from coordinator.store.pool import Connection

ERASING_DEADLINE = 600.0
"""Seconds that one statement of an erasure may take: the activity log is read from end to end."""

# Each kind of row with its statement: rows of the client $1 behind the key $2, at most $3 of them, in the order of
# their keys, which are texts.  What is found by no index is read whole; those tables are bounded.
_KINDS: Mapping[str, str] = {
    "client": """
        SELECT client_id AS key, (to_jsonb(c) - 'secret_hash')::text AS data FROM client c
         WHERE client_id = $1 AND client_id > $2 LIMIT $3""",
    "membership": """
        SELECT lpad(m.service_id::text, 12, '0') AS key,
               (to_jsonb(m) - '{client_id,service_id}'::text[] || jsonb_build_object('service', s.name))::text AS data
          FROM membership m JOIN service s USING (service_id)
         WHERE m.client_id = $1 AND lpad(m.service_id::text, 12, '0') > $2 ORDER BY 1 LIMIT $3""",
    "session": """
        SELECT session_id::text AS key, (to_jsonb(s) - 'client_id')::text AS data FROM session s
         WHERE client_id = $1 AND session_id::text > $2 ORDER BY 1 LIMIT $3""",
    "notice": """
        SELECT lpad(notice_id::text, 19, '0') AS key, (to_jsonb(n) - '{client_id,service_id}'::text[])::text AS data
          FROM notice n WHERE client_id = $1 AND lpad(notice_id::text, 19, '0') > $2 ORDER BY 1 LIMIT $3""",
    "given_back": """
        SELECT bucket_id::text AS key, (to_jsonb(r) - 'client_id')::text AS data FROM return_block r
         WHERE client_id = $1 AND bucket_id::text > $2 ORDER BY 1 LIMIT $3""",
    "day": """
        SELECT day || ' ' || s.name AS key,
               jsonb_build_object('day', day, 'service', s.name, 'settled', settled)::text AS data
          FROM client_day JOIN service s USING (service_id)
         WHERE client_id = $1 AND day || ' ' || s.name > $2 ORDER BY 1 LIMIT $3""",
    "period": """
        SELECT period || ' ' || begins || ' ' || s.name AS key,
               jsonb_build_object('period', period, 'begins', begins, 'service', s.name, 'settled', settled)::text
                   AS data
          FROM client_period JOIN service s USING (service_id)
         WHERE client_id = $1 AND period || ' ' || begins || ' ' || s.name > $2 ORDER BY 1 LIMIT $3""",
    "label": """
        SELECT json_time(hour) || ' ' || s.name || ' ' || label AS key,
               jsonb_build_object('hour', hour, 'service', s.name, 'label', label, 'results', n)::text AS data
          FROM client_label JOIN service s USING (service_id)
         WHERE client_id = $1 AND json_time(hour) || ' ' || s.name || ' ' || label > $2 ORDER BY 1 LIMIT $3""",
    "activity": """
        SELECT json_time(at) || ' ' || lpad(activity_id::text, 19, '0') AS key,
               jsonb_build_object('at', at, 'who', who, 'action', action, 'target', target, 'outcome', outcome)::text
                   AS data
          FROM activity
         WHERE target = $1 AND at >= coalesce(nullif(split_part($2, ' ', 1), '')::timestamptz, '-infinity')
           AND json_time(at) || ' ' || lpad(activity_id::text, 19, '0') > $2
         ORDER BY at, activity_id LIMIT $3""",
    "event": """
        SELECT lpad(event_id::text, 19, '0') AS key,
               jsonb_build_object('at', at, 'kind', kind, 'service', service, 'bucket_id', bucket_id,
                                  'text', text)::text AS data
          FROM event WHERE client_id = $1 AND event_id > coalesce(nullif($2, '')::bigint, 0)
         ORDER BY event_id LIMIT $3""",
    "claim": """
        SELECT lpad(claim_id::text, 19, '0') AS key,
               jsonb_build_object('claim', claim_id, 'bucket_id', bucket_id, 'service', s.name,
                                  'session_id', session_id, 'begun_at', begun_at, 'ended_at', ended_at,
                                  'ended', ended, 'settled', settled, 'valid', invalidated_by IS NULL)::text AS data
          FROM claim JOIN service s USING (service_id)
         WHERE client_id = $1 AND claim_id > coalesce(nullif($2, '')::bigint, 0) ORDER BY claim_id LIMIT $3""",
    "result": """
        SELECT lpad(r.claim_id::text, 19, '0') || ' ' || lpad(r.item_id::text, 19, '0') AS key,
               jsonb_build_object('claim', r.claim_id, 'service', s.name, 'item', r.item_id, 'key', i.key,
                                  'value', r.value, 'at', r.at)::text AS data
          FROM claim c
          JOIN service s USING (service_id)
          JOIN bucket_items b USING (bucket_id)
         CROSS JOIN LATERAL results_of_claim(b.items, c.claim_id) r
          JOIN item i ON i.item_id = r.item_id
         WHERE c.client_id = $1 AND c.settled > 0
           AND c.claim_id >= coalesce(nullif(split_part($2, ' ', 1), '')::bigint, 0)
           AND lpad(r.claim_id::text, 19, '0') || ' ' || lpad(r.item_id::text, 19, '0') > $2
         ORDER BY c.claim_id, r.item_id LIMIT $3""",
}

KINDS = tuple(_KINDS)
"""The kinds of rows, in the order in which they come."""


@dataclass(frozen=True, slots=True)
class PersonalPage:
    """Rows, each a JSON object, and the (key, kind) behind which the next page begins; None at the end."""

    rows: list[str]
    last: tuple[str, int] | None


async def page(db: Connection, client: ClientId, after: tuple[str, int], limit: int) -> PersonalPage:
    """Read what is kept of a client, from behind `after` (key, number of the kind) on; nothing of a secret."""
    found: list[str] = []
    key, first = after
    for number in range(first, len(KINDS)):
        rows = await db.fetch(_KINDS[KINDS[number]], client, key, limit - len(found))
        found.extend(f'{{"kind":"{KINDS[number]}","data":{row["data"]}}}' for row in rows)
        if len(found) >= limit:
            return PersonalPage(found, (rows[-1]["key"], number))
        key = ""
    return PersonalPage(found, None)


_IS_HERE = """
SELECT EXISTS (SELECT FROM open_session WHERE client_id = $1) OR EXISTS (SELECT FROM bucket WHERE client_id = $1)"""

_NAME = "SELECT screen_name FROM client WHERE client_id = $1 FOR UPDATE"

_NUMBER = "SELECT nextval('erasure_number')::text"

_IS_TAKEN = "SELECT EXISTS (SELECT FROM client WHERE client_id = $1)"

# The row of a client nobody can be: its secret is drawn and thrown away, so that what it did stays its own.
_REPLACE = """
INSERT INTO client (client_id, secret_hash, screen_name, registered, deactivated, registered_at)
SELECT $2, $3, $2, false, 'erased', registered_at FROM client WHERE client_id = $1"""

# $1 the client, $2 its number
_RENAME = (
    "UPDATE membership SET client_id = $2, profile = '{}', inactive_reason = NULL, joined = false WHERE client_id = $1",
    "UPDATE session SET client_id = $2, address = $2, agent = $2 WHERE client_id = $1",
    "UPDATE claim SET client_id = $2 WHERE client_id = $1",
    "UPDATE invalidation SET client_id = $2 WHERE client_id = $1",
    "UPDATE client_day SET client_id = $2 WHERE client_id = $1",
    "UPDATE client_period SET client_id = $2 WHERE client_id = $1",
    "UPDATE client_label SET client_id = $2 WHERE client_id = $1",
    """
    UPDATE activity SET who = CASE WHEN who = $1 THEN $2 ELSE who END,
                        target = CASE WHEN target = $1 THEN $2 ELSE target END
     WHERE who = $1 OR target = $1""",
)

_FORGET_NOTICES = "DELETE FROM notice WHERE client_id = $1 RETURNING notice_id"

_FORGET = (
    "DELETE FROM return_block WHERE client_id = $1",
    "DELETE FROM client WHERE client_id = $1",
)

# $1 the client, $2 its number, $3 its names as a pattern
_RENAME_IN_EVENTS = """
UPDATE event SET client_id = $2, text = regexp_replace(text, $3, $2, 'g') WHERE client_id = $1"""


async def is_here(db: Connection, client: ClientId) -> bool:
    """Tell whether a client has a session, or holds a bucket, on any node."""
    return bool(await db.fetchval(_IS_HERE, client))


async def erase(db: Connection, client: ClientId) -> tuple[ClientId, list[int]] | None:
    """Replace all that tells who a client is by a number, within a transaction; None if there is no such client.

    Returns the number, and those of the notices to it, which are gone.
    """
    screen_name = await db.fetchval(_NAME, client)
    if screen_name is None:
        return None
    number = await db.fetchval(_NUMBER)
    while await db.fetchval(_IS_TAKEN, number):  # by one who is called so
        number = await db.fetchval(_NUMBER)

    await db.execute(_REPLACE, client, number, secrets.token_bytes(32))
    for statement in _RENAME:
        await db.execute(statement, client, number, timeout=ERASING_DEADLINE)
    names = "|".join(sorted({re.escape(client), re.escape(screen_name)}, key=len, reverse=True))
    await db.execute(
        _RENAME_IN_EVENTS, client, number, rf"(?<![A-Za-z0-9_.-])({names})(?![A-Za-z0-9_.-])", timeout=ERASING_DEADLINE
    )
    notices = [row["notice_id"] for row in await db.fetch(_FORGET_NOTICES, client)]
    for statement in _FORGET:
        await db.execute(statement, client)
    return ClientId(number), notices
