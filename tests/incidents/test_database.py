"""Databases that were there and did not work, and what that did to those that used them."""

from __future__ import annotations

import asyncio
import contextlib
import urllib.error
import urllib.request
from time import monotonic

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.flow.outage import Outage
from tests.flow.test_blame import HOUR, step_clock, told
from tests.harness import Admin, Message, Server, Volunteer, submission
from tests.serve.tools import configure, eventually, execute, results, value
from tests.trouble import poolers
from tests.trouble.server import troubled_postgres

CLIENTS = 20


async def test_repeats_do_not_keep_an_outage_alive(start_server: StartServer, database: Database) -> None:
    """Failing raised the load, and the load kept it failing: a metastable failure.

    https://sigops.org/s/conferences/hotos/2021/papers/hotos21-s11-bronson.pdf
    """
    server = await start_server()
    admin = await server.admin()
    clients = [await server.volunteer(f"client{n}") for n in range(CLIENTS)]
    buckets = []
    for number, client in enumerate(clients):
        await admin.add(2, prefix=f"round{number}_")
        buckets.append(await client.bucket())

    async def insist(client: Volunteer, bucket: Message) -> float:
        """Repeat a submit at once whenever it fails, which no client should; returns when it was stored."""
        while True:
            answer = await client.ask_for("submit", **submission(bucket))
            if answer["type"] == "stored":
                return monotonic()
            assert answer["code"] == "unavailable", answer
            assert answer["retry_after"] > 0

    async def break_it() -> float:
        outage = Outage(database.dsn)
        for _ in range(6):
            await outage.strike()
        return monotonic()

    ended, *stored = await asyncio.gather(break_it(), *map(insist, clients, buckets))
    assert max(stored) - ended < 5
    assert await results(database) == 2 * CLIENTS


async def test_finished_buckets_leave_little_behind(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    """Finished jobs filled the disk, and then the database could not even be cleared.

    https://github.com/earendil-works/absurd/issues/130
    """
    for number in range(3):
        await admin.add(5, prefix=f"round{number}_", services=["dm_check"])
        await volunteer.submit(await volunteer.bucket())

    async def forgotten() -> bool:
        return not await value(server.database, "SELECT count(*) FROM open_bucket")

    await eventually(forgotten, "the frames of finished buckets are gone")
    assert await value(server.database, "SELECT count(*) FROM waiting") == 0
    assert await results(server.database) == 15


async def test_one_that_can_only_be_read_is_not_ready(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    """After a failover the health check looked at a standby, and found it well.

    https://github.com/windmill-labs/windmill/pull/9722, https://github.com/riverqueue/river/issues/1225
    """
    await admin.add(2)
    bucket = await volunteer.bucket()
    name = await value(server.database, "SELECT current_database()")
    await execute(server.database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        await Outage(server.database.dsn).strike()
        assert (await volunteer.submit(bucket))["code"] == "unavailable"
        assert await asyncio.to_thread(_status, server) == 503
    finally:
        async with server.database.transaction() as db:
            await db.execute("SET TRANSACTION READ WRITE")
            await db.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await Outage(server.database.dsn).strike()

    async def stored() -> bool:
        return bool((await volunteer.submit(bucket))["type"] == "stored")

    await eventually(stored, "what was refused is stored", 10)


async def test_a_clock_that_was_ahead_and_is_set_back_lets_nobody_wait(
    start_server: StartServer, database: Database
) -> None:
    """All that was due by the wrong clock came an hour late, or never.

    https://github.com/sidekiq-scheduler/sidekiq-scheduler/issues/283
    """
    await configure(database, bucket_size=1)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(4)
    await step_clock(database, HOUR)
    await told("set ahead", server)
    for _ in range(2):
        bucket = await client.bucket()
        await client.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])

    await step_clock(database, -HOUR)
    await told("set back", server)
    assert (await client.submit(await client.bucket()))["closed"] is True


@pytest.mark.skipif(poolers.PROGRAM is None, reason="Debian's package pgbouncer is not installed")
def test_a_pooler_that_forgets_prepared_statements_is_found_at_the_start() -> None:
    """Else workers fail now and then, as statements meet another process; or all end again and again.

    https://github.com/MagicStack/asyncpg/issues/121, https://github.com/malthe/pq/issues/30,
    https://github.com/cbcoutinho/nextcloud-mcp-server/pull/1032
    """
    with troubled_postgres() as postgres:
        outcome = asyncio.run(poolers.shared_mode(postgres, "transaction"))
    assert outcome.good, outcome.seen


def _status(server: Server) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.node.port}/readyz") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with contextlib.closing(refusal):
            return refusal.code
