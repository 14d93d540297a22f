"""A volunteer is told all that is kept of it, and can be erased, while its results stay."""

from __future__ import annotations

import json

from coordinator.store import personal_data
from coordinator.store.pool import Database
from tests.harness import Admin, Message, Peer, Server
from tests.serve.tools import execute, join_again, value

_TEXT_COLUMNS = """
SELECT table_name, column_name FROM information_schema.columns
 WHERE table_schema = 'public' AND data_type IN ('text', 'jsonb') AND table_name IN (
       SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE')"""


async def exported(peer: Peer, kind: str, limit: int, **fields: str) -> list[Message]:
    """All rows, in pages of that size."""
    rows: list[Message] = []
    after = None
    while True:
        page = await peer.ok(kind, limit=limit, **({"after": after} if after else {}), **fields)
        assert len(page["rows"]) <= limit
        rows += page["rows"]
        after = page["next"]
        if after is None:
            return rows


async def test_a_client_is_told_all_that_is_kept_of_it_and_an_admin_the_same(server: Server, admin: Admin) -> None:
    volunteer = await server.volunteer("ada")
    stranger = await server.client()
    await stranger.hello("stranger")
    assert await stranger.refused("me.export") == "not_registered"

    await admin.ok("notice.send", text="to you", client_id="ada")
    await volunteer.push("notice")
    await admin.add(5)
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=[item["item"] for item in bucket["items"][:4]], final=False)
    await volunteer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    await server.node.parts.statistics.recorder.write()
    await execute(
        server.database, "INSERT INTO client_period SELECT 'week', day, client_id, service_id, settled FROM client_day"
    )

    rows = await exported(volunteer, "me.export", 1000)
    kinds = [row["kind"] for row in rows]
    assert set(kinds) | {"label"} == set(personal_data.KINDS)  # that is counted later
    assert kinds.count("result") == 4
    assert "secret" not in json.dumps(rows)
    for limit in (1, 3):
        again = await exported(volunteer, "me.export", limit)
        assert [row for row in again if row["kind"] != "membership"] == [r for r in rows if r["kind"] != "membership"]

    by_admin = await exported(admin, "client.export", 1000, client_id="ada")
    assert {row["kind"] for row in by_admin} == set(kinds)
    operator = await server.admin("operator")
    assert await operator.refused("client.export", client_id="ada") == "forbidden"
    assert await operator.refused("client.erase", client_id="ada") == "forbidden"
    assert await admin.refused("client.export", client_id="nobody") == "not_found"
    assert await volunteer.refused("me.export", after="x") == "bad_message"


async def places_of(database: Database, name: str) -> list[str]:
    """Where a name stands in the database."""
    async with database.connection() as db:
        columns = await db.fetch(_TEXT_COLUMNS)
        return [
            f"{table}.{column}"
            for table, column in columns
            if await db.fetchval(f'SELECT EXISTS (SELECT FROM "{table}" WHERE "{column}"::text ~ $1)', name)
        ]


async def test_an_erased_client_is_a_number_everywhere_and_its_results_stay(
    server: Server, admin: Admin, database: Database
) -> None:
    volunteer = await server.client()
    await volunteer.hello("ada-laptop", agent="adas-own/1.0")
    profile = {"source": "adas_account"}
    await volunteer.ok("register", screen_name="Lovelace", services=[{"service": "dm_check", "profile": profile}])
    await admin.ok("notice.send", text="to you", client_id="ada-laptop")
    await volunteer.push("notice")
    await admin.add(3)
    await volunteer.submit(await volunteer.bucket())
    await admin.add(2, prefix="more")
    await volunteer.bucket()
    await server.node.parts.statistics.recorder.write()
    assert len(await places_of(database, "ada-laptop")) > 4

    erased = (await admin.ok("client.erase", client_id="ada-laptop"))["erased"]
    assert erased.isdigit()
    assert await volunteer.close_code() == 4502
    await server.node.parts.statistics.recorder.write()
    await server.node.parts.work.activity_log.flush()
    for name in ("ada-laptop", "Lovelace", "adas-own", "adas_account"):
        assert await places_of(database, name) == []
    assert await value(database, "SELECT target FROM activity WHERE action = 'client.erase'") == erased
    assert await value(database, "SELECT count(*) FROM session WHERE client_id = $1 AND address <> $1", erased) == 0

    rows = (await admin.ok("result.list", service="dm_check"))["rows"]
    assert [(row["client_id"], row["valid"]) for row in rows] == [(erased, True)] * 3
    assert await admin.refused("client.erase", client_id="ada-laptop") == "not_found"

    # Its id is free again, and the number is nobody's.
    other = await server.volunteer("ada-laptop")
    assert (await other.bucket())["items"]
    thief = await server.client()
    assert await thief.refused("hello", protocol=1, client_id=erased, secret="x" * 32) == "unauthorized"
    _, welcome = await join_again(server, "ada-laptop")
    assert welcome["registered"]
