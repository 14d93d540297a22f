"""Nobody is blamed for what the server could not see or do in time."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from coordinator.embedded import EmbeddedPostgres
from coordinator.flow.commits import Commits
from coordinator.model import Boot
from coordinator.store import health, overdue
from coordinator.store.health import WorkCounts
from coordinator.store.pool import Database
from coordinator.store.results import CheckedSubmit, SubmitOutcome
from tests.conftest import StartServer
from tests.flow.outage import Outage, standing_still
from tests.harness import Message, Server, Volunteer
from tests.serve.tools import configure, eventually, value
from tests.store.bench import Bench, interrupt

HOUR = 3600.0

# All times that deadlines, waits and leases go by: to set them back is to set the clock ahead.
_MOVE_TIMES = """
UPDATE bucket SET touched_at = touched_at - {0}, kept_until = kept_until - {0}, split_at = split_at - {0};
UPDATE claim SET begun_at = begun_at - {0}, ended_at = ended_at - {0};
UPDATE membership SET wait_until = wait_until - {0}, report_until = report_until - {0},
                      last_access = last_access - {0}, returned_at = returned_at - {0};
UPDATE return_block SET until = until - {0};
UPDATE newcomer_block SET wait_until = wait_until - {0}, last_at = last_at - {0};
UPDATE node SET lease_until = lease_until - {0};
UPDATE server_clock SET seen_at = seen_at - {0};
UPDATE outage SET ended_at = ended_at - {0}"""


async def step_clock(database: Database, seconds: float) -> None:
    """Set the database's clock ahead, or back by less than 0 seconds, as far as what stands in it can tell."""
    async with database.transaction() as db:
        await db.execute(_MOVE_TIMES.format(f"make_interval(secs => {seconds})"))


async def all_well(database: Database) -> bool:
    """Whether no client was blamed for anything, and no bucket taken from its holder."""
    return bool(
        await value(
            database,
            """SELECT (SELECT bool_and(health = 'ok' AND died = 0 AND dead = 0 AND hoarded = 0) FROM membership)
                      AND NOT EXISTS (SELECT FROM bucket WHERE state = 'dead')
                      AND NOT EXISTS (SELECT FROM node WHERE state = 'gone')""",
        )
    )


async def told(word: str, *servers: Server) -> None:
    """Wait until one of the nodes has told that time does not count."""

    async def is_told() -> bool:
        events = [event for server in servers for event in server.node.events.since(0)]
        return any(event.kind == "node" and word in event.text for event in events)

    await eventually(is_told, f"nothing with {word!r} was told")


async def some_at_work(server: Server, number: int) -> list[tuple[Volunteer, Message]]:
    """Volunteers that hold a bucket each."""
    admin = await server.admin()
    await admin.add(4 * number)
    peers = [await server.volunteer(f"client{n}") for n in range(number)]
    return [(peer, await peer.bucket()) for peer in peers]


# Order


async def test_what_was_taken_before_a_bucket_died_was_not_taken_after_it(database: Database) -> None:
    """Though it is counted later: the counts are written once a second."""
    bench = await Bench.make(database)
    ada = await bench.worker("ada")
    key = ada.client_id, bench.service
    old, young = [await bench.held(ada, 2) for _ in range(2)]
    await bench.execute("UPDATE bucket SET touched_at = now() - interval '1 hour' WHERE bucket_id = $1", old.bucket_id)

    async with database.connection() as db:
        assert [bucket.bucket_id for bucket in await overdue.mark_dead(db, bench.service, 100, bench.boot)] == [
            old.bucket_id
        ]
        (figures,) = await health.count(db, {key: WorkCounts(worked=True, assigned=2)}, 3)
        assert (figures.died, figures.asked_on) == (1, 0)

        await bench.held(ada, 2)
        (figures,) = await health.count(db, {key: WorkCounts(worked=True, assigned=1)}, 3)
        assert figures.asked_on == 1

        # What it gets back, it has not taken anew.
        await bench.cut_off(ada)
        assert young.bucket_id in [regrant.claimed.bucket_id for regrant in await bench.recollect(ada)]
        await db.execute("UPDATE membership SET died_claim = (SELECT max(claim_id) - 1 FROM claim)")
        (figures,) = await health.count(db, {key: WorkCounts(worked=True)}, 3)
        assert figures.asked_on == 0


# Outages


@pytest.mark.measured
async def test_an_outage_does_not_count_for_those_who_hold_something(
    postgres: EmbeddedPostgres, start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=2, dead_after=3, release_after=60)
    server = await start_server(node_lease=60.0)
    held = await some_at_work(server, 4)

    with standing_still(postgres):
        await asyncio.sleep(3.3)
    await told("the database was away", server)
    submits = [peer.submit(bucket) for peer, bucket in held]
    assert {answer["type"] for answer in await asyncio.gather(*submits)} == {"stored"}
    assert await all_well(database)


async def test_whoever_asks_on_during_an_outage_is_no_hoarder(
    start_server: StartServer, database: Database, dsn: str
) -> None:
    """It cannot settle anything then, however long that lasts."""
    await configure(database, bucket_size=1, dead_after=100)
    server = await start_server()
    ((peer, _),) = await some_at_work(server, 1)
    await asyncio.sleep(1.05)  # as long as is too long

    async def noticed() -> bool:
        await Outage(dsn).strike()  # connections in use, not only idle ones, which are replaced without a word
        return server.node.parts.core.database.failed_at > 0

    await eventually(noticed, "a statement shows that the database was away")
    await peer.bucket()
    await server.node.parts.statistics.recorder.write()
    assert await all_well(database)


async def test_a_submit_that_failed_in_time_may_be_repeated(
    start_server: StartServer, database: Database, dsn: str
) -> None:
    """Though the database was away for a moment only, and others were served meanwhile."""
    await configure(database, bucket_size=2, dead_after=1, release_after=1, max_claim_time=1)
    server = await start_server()
    ((peer, bucket),) = await some_at_work(server, 1)
    await refused_in_time(dsn, peer, bucket)
    await rounds(server, 1.2)
    assert (await peer.submit(bucket))["type"] == "stored"
    await server.node.parts.statistics.recorder.write()
    assert await all_well(database)


async def test_what_a_submit_that_failed_in_time_had_revived_is_not_freed(
    start_server: StartServer, database: Database, dsn: str
) -> None:
    await configure(database, bucket_size=2, dead_after=1, release_after=2)
    server = await start_server()
    ((peer, bucket),) = await some_at_work(server, 1)
    assert (await peer.push("bucket_dead"))["bucket_id"] == bucket["bucket_id"]
    await refused_in_time(dsn, peer, bucket)
    await rounds(server, 2.2)
    assert (await peer.submit(bucket))["type"] == "stored"
    assert not await value(database, "SELECT sum(dead) FROM membership")


async def test_a_submit_that_waits_for_others_came_in_time(
    start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await configure(database, bucket_size=2, dead_after=1, release_after=1, max_claim_time=1)
    server = await start_server()
    ((peer, bucket),) = await some_at_work(server, 1)
    add, goes_on = Commits.add, asyncio.Event()

    async def wait(commits: Commits, submit: CheckedSubmit) -> SubmitOutcome:
        await goes_on.wait()
        return await add(commits, submit)

    monkeypatch.setattr(Commits, "add", wait)
    answer = asyncio.ensure_future(peer.submit(bucket))
    await rounds(server, 1.2)
    goes_on.set()
    assert (await answer)["type"] == "stored"
    await server.node.parts.statistics.recorder.write()
    assert await all_well(database)


async def test_no_node_lets_a_bucket_die_that_another_ones_session_holds(database: Database) -> None:
    """Only the other one knows whether it could have been submitted in time."""
    bench = await Bench.make(database)
    held = await bench.held(await bench.worker("ada"))
    other = Boot(bench.boot + 1)
    await bench.execute("UPDATE bucket SET touched_at = now() - interval '1 hour'")
    async with database.connection() as db:
        assert await overdue.mark_dead(db, bench.service, 100, other) == []
        assert await overdue.mark_dead(db, bench.service, 100, bench.boot, [held.bucket_id]) == []
        assert len(await overdue.mark_dead(db, bench.service, 100, bench.boot)) == 1
        await bench.execute("UPDATE bucket SET touched_at = now() - interval '1 hour'")
        assert await overdue.release_dead(db, bench.service, 100, 120, other) == []
        assert await overdue.release_dead(db, bench.service, 100, 120, bench.boot, [held.bucket_id]) == []
        assert len(await overdue.release_dead(db, bench.service, 100, 120, bench.boot)) == 1


async def refused_in_time(dsn: str, peer: Volunteer, bucket: Message) -> None:
    """Let the database fail under a submit."""
    locker = await asyncpg.connect(dsn)
    async with locker.transaction():
        await locker.execute("SELECT FROM bucket FOR UPDATE")
        answer = asyncio.ensure_future(peer.submit(bucket))
        await interrupt(locker)
        assert (await answer)["code"] == "unavailable"
    await locker.close()


async def rounds(server: Server, seconds: float) -> None:
    """Wait until a round of expiry was run that began so many seconds after now."""
    await asyncio.sleep(seconds)
    await server.node.parts.work.expiry.tick()


# The clock


async def test_the_clock_an_hour_ahead_and_back_is_nobodys_fault(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2, dead_after=600, release_after=60)
    servers = [await start_server(node_name=name) for name in ("one", "two")]
    held = await some_at_work(servers[0], 8)
    other = await servers[1].volunteer("waiting")
    bucket = await other.bucket()
    await other.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])

    for seconds, word in ((HOUR, "set ahead"), (-HOUR, "set back")):
        await step_clock(database, seconds)
        await told(word, *servers)
        for server in servers:
            await server.node.parts.work.expiry.tick()
        assert await all_well(database)
        assert await value(database, "SELECT bool_and(until < now() + interval '1 minute') FROM return_block")
        assert await value(database, "SELECT bool_and(touched_at <= now()) FROM bucket WHERE touched_at IS NOT NULL")

    submits = [peer.submit(bucket) for peer, bucket in held]
    assert {answer["type"] for answer in await asyncio.gather(*submits)} == {"stored"}
