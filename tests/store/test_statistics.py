"""Counts without a scan are what a scan finds; the history is what was added."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.model import Boot, ServiceId
from coordinator.store import building, events, history, people, statistics
from coordinator.store.history import Counts
from coordinator.store.pool import Database
from coordinator.store.statistics import ServiceTotals
from tests.store.bench import Bench, submit

SCAN = """
SELECT (SELECT count(*) FROM enrolled_item WHERE service_id = $1) AS joined,
       (SELECT count(*) FROM waiting_item WHERE service_id = $1) AS waiting,
       (SELECT count(*) FROM quarantine WHERE service_id = $1) AS quarantined"""


async def state_of(bench: Bench) -> ServiceTotals:
    async with bench.database.connection() as db:
        return (await statistics.state(db))[bench.service]


async def scanned(bench: Bench) -> tuple[int, int, int]:
    (row,) = await bench.rows(SCAN, bench.service)
    return row["joined"], row["waiting"], row["quarantined"]


async def test_counts_agree_with_counting(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    await bench.waiting(5)
    await bench.execute("INSERT INTO quarantine SELECT $1, $2, 3", bench.service, (await bench.items(1))[0])
    done, part, dead, twice = [await bench.held(ada, 4) for _ in range(4)]
    await bench.settle(submit(done), submit(part, part.items[:1], final=False))
    await bench.execute("UPDATE bucket SET state = 'dead' WHERE bucket_id = $1", dead.bucket_id)
    await bench.prioritize(twice.items[:2])
    (urgent,) = await bench.claim(bob)
    await bench.settle_one(submit(urgent, twice.items[:1], final=False))
    await bench.bucket(3)
    every = [row["item_id"] for row in await bench.rows("SELECT item_id FROM enrolled_item")]
    places = {item: await bench.places(item) for item in every}
    state = await state_of(bench)
    assert state.total == len(every)
    assert state.settled == len({item for item, _ in await bench.stored()}) == 4 + 1 + 1
    for place in ("waiting", "quarantined", "ready"):
        assert getattr(state, place) == sum(found == [place] for found in places.values())
    # Of the two items with a second copy one is settled, and the other one item, not two.
    assert (state.claimed, state.dead) == (3 + 3, 4)
    assert state.left + state.settled + state.quarantined == state.total
    assert state.buckets == {"ready": 1, "claimed": 3, "dead": 1}


async def test_the_copy_that_is_left_over_is_taken_off_where_it_is(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    await bench.held(ada, 3)
    dead = await bench.held(ada, 2)
    await bench.execute("UPDATE bucket SET state = 'dead' WHERE bucket_id = $1", dead.bucket_id)
    await bench.prioritize(dead.items[:1])

    async def counted() -> tuple[int, int, int, int]:
        state = await state_of(bench)
        return state.ready, state.claimed, state.dead, state.settled

    assert await counted() == (1, 3, 1, 0)
    await bench.claim(bob)
    assert await counted() == (0, 4, 1, 0)
    await bench.settle_one(submit(dead, dead.items[:1], final=False))
    assert await counted() == (0, 4, 0, 1)


async def test_counts_of_many_at_once_are_exact(bench: Bench) -> None:
    """Adders, takers and folders side by side; whoever looks in between never sees a change twice or not at all."""
    chance = random.Random(7)

    async def change() -> None:
        for _ in range(15):
            added = await bench.waiting(chance.randrange(1, 20))
            gone = chance.sample(added, chance.randrange(len(added) + 1))
            async with bench.database.transaction() as db:
                await building.lock(db, [bench.service])
                await db.fetch("SELECT * FROM take_waiting($1, $2)", bench.service, gone)
                if chance.random() < 0.3:
                    await db.execute("INSERT INTO quarantine SELECT $1, unnest($2::bigint[]), 3", bench.service, gone)
                    await db.execute("DELETE FROM quarantine WHERE item_id = ANY ($1::bigint[])", gone[1:])

    async def fold() -> None:
        for _ in range(30):
            async with bench.database.connection() as db:
                await statistics.fold(db)

    async def look() -> None:
        for _ in range(30):
            async with bench.database.connection() as db, db.transaction(isolation="repeatable_read"):
                one = (await statistics.state(db))[bench.service]
                row = await db.fetchrow(SCAN, bench.service)
                assert (one.total, one.waiting, one.quarantined) == tuple(row)

    async with asyncio.TaskGroup() as group:
        for step in (change, change, change, fold, fold, look):
            group.create_task(step())
    before = await state_of(bench)
    assert (before.total, before.waiting, before.quarantined) == await scanned(bench)
    async with bench.database.connection() as db:
        while await statistics.fold(db):
            pass
        assert await db.fetchval("SELECT count(*) FROM count_change") == 0
    assert await state_of(bench) == before


async def test_what_is_rolled_back_is_not_counted(bench: Bench) -> None:
    await bench.waiting(3)

    async def fail() -> None:
        async with bench.database.transaction() as db:
            await db.execute("DELETE FROM waiting")
            await db.execute("DO $$ BEGIN RAISE EXCEPTION 'no'; END $$")

    with pytest.raises(asyncpg.RaiseError):
        await fail()
    assert (await state_of(bench)).waiting == 3


async def test_the_oldest_unclaimed_of_each_priority(bench: Bench, database: Database) -> None:
    await bench.waiting(1500)
    await bench.waiting(1, priority=0, head_start=86_400.0)
    await bench.waiting(2, priority=150, head_start=-43_200.0)
    await bench.bucket(2, age=500)
    await bench.bucket(1, age=50, priority=20)
    async with database.connection() as db:
        states = await statistics.state(db)
        await statistics.add_fronts(db, states)
        now = await db.fetchval("SELECT now()")
    oldest = states[bench.service].oldest
    assert set(oldest) == {0, 20, 100, 150}
    for priority, age in ((100, 500), (20, 50), (0, 0), (150, 0)):
        assert (now - oldest[priority].since).total_seconds() == pytest.approx(age, abs=5)
    assert (now - oldest[0].rank_at).total_seconds() == pytest.approx(86_400, abs=5)


# History


async def add(bench: Bench, counts: Counts, service: ServiceId | None = None) -> None:
    async with bench.database.connection() as db:
        await history.add(db, [(service or bench.service, counts)])


async def test_counts_of_all_nodes_come_together(bench: Bench) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(add(bench, (180, 1, 2, 3, 4, 5)))
    for step in ("second", "minute", "hour"):
        (row,) = await bench.rows(
            """SELECT sum(settled) AS settled, sum(submits) AS submits, sum(given_back) AS given_back,
                      sum(dead) AS dead, sum(disconnects) AS disconnects, sum(bad_submits) AS bad_submits
                 FROM history WHERE step = $1""",
            step,
        )
        assert tuple(row.values()) == (1800, 10, 20, 30, 40, 50), step


async def test_seconds_are_read_from_any_time_on(bench: Bench) -> None:
    async with bench.database.connection() as db:
        assert (await history.seconds(db, 300))[1] == []
        await history.add(db, [(bench.service, (7, 1, 0, 0, 0, 0))])
        await bench.execute("UPDATE history SET at = at - interval '20 s' WHERE step = 'second'")
        now, found = await history.seconds(db, 300)
        assert [(one.settled, one.submits) for one in found] == [(7, 1)]
        assert now - found[0].at == pytest.approx(20.5, abs=2)
        assert (await history.seconds(db, 10))[1] == []


async def test_active_minutes_are_found_however_long_ago(bench: Bench) -> None:
    async with bench.database.connection() as db:
        # The newest minute counts from its first half second on; all in one statement, of one minute.
        await db.execute(
            """INSERT INTO history (step, at, service_id, settled)
               SELECT 'minute', date_trunc('minute', now() - interval '0.5 seconds') - make_interval(mins => ago), $1, n
                 FROM (VALUES (0, 60), (1, 0), (2, 120), (5000, 30)) AS m (ago, n)""",
            bench.service,
        )
        found = (await history.active_minutes(db, 10))[bench.service]
        assert [settled for _, settled in found] == [60, 120, 30]
        assert [found[0][0] - minute for minute, _ in found] == [0, 2, 5000]
        assert len((await history.active_minutes(db, 2))[bench.service]) == 2


async def test_what_is_old_is_forgotten_but_for_hours(bench: Bench) -> None:
    await add(bench, (1, 0, 0, 0, 0, 0))
    async with bench.database.connection() as db:
        for age, left in (("9 minutes", 3), ("11 minutes", 2), ("6 days", 2), ("8 days", 1), ("9 years", 1)):
            await db.execute(f"UPDATE history SET at = now() - interval '{age}'")
            await history.forget(db)
            assert await db.fetchval("SELECT count(*) FROM history") == left, age


async def test_history_in_pages_newest_first(bench: Bench) -> None:
    async with bench.database.connection() as db:
        other = ServiceId(bench.service + 1000)
        await db.execute(
            """INSERT INTO history (step, at, service_id, settled)
               SELECT 'minute', '2026-01-01'::timestamptz + make_interval(mins => n), s, n
                 FROM generate_series(1, 20) n, unnest($1::int[]) s""",
            [bench.service, other],
        )
        latest, since = datetime.max.replace(tzinfo=UTC), datetime(2026, 1, 1, 0, 11, tzinfo=UTC)
        before, seen = (latest, 0), []
        while page := await history.page(db, "minute", before, since, 7, None):
            seen += [(row["settled"], row["service_id"]) for row in page]
            before = (page[-1]["at"], page[-1]["service_id"])
        assert seen == [(n, s) for n in range(20, 10, -1) for s in (other, bench.service)]
        mine = await history.page(db, "minute", (since + timedelta(minutes=4), 0), since, 100, bench.service)
        assert [row["settled"] for row in mine] == [14, 13, 12, 11]


# Events


async def test_events_by_client_service_and_kind(bench: Bench) -> None:
    async with bench.database.connection() as db:
        assert (await events.reach(db))[0] == 0
        told = [
            (3.0, "connect", "ada", None, None, "connected", "info"),
            (2.0, "dead", "ada", "dm_check", "b1", "held too long", "warning"),
            (1.0, "fault", None, "dm_check", None, "oh", "error"),
        ]
        await events.write(db, Boot(1), told)
        every = await events.page(db, 2**62, 10)
        assert [row["kind"] for row in every] == ["fault", "dead", "connect"]
        assert every[2]["at"] < every[1]["at"] < every[0]["at"]
        assert [row["kind"] for row in await events.page(db, every[0]["event_id"], 1)] == ["dead"]

        async def kinds(**which: Any) -> list[str]:
            return [row["kind"] for row in await events.page(db, 2**62, 10, events.EventFilter(**which))]

        assert await kinds(client="ada") == ["dead", "connect"]
        assert await kinds(client="ada", kinds=["dead"]) == ["dead"]
        assert await kinds(service="dm_check") == ["fault", "dead"]
        assert await kinds(service="no", kinds=["fault"]) == []
        assert await kinds(kinds=["fault", "connect", "fault"]) == ["fault", "connect"]
        assert await kinds(severity="warning") == ["fault", "dead"]
        assert await kinds(severity="error", kinds=["dead", "fault"]) == ["fault"]
        assert await kinds(severity="warning", client="ada") == ["dead"]
        for since in (every[1]["at"], every[1]["at"] + timedelta(seconds=0.5)):
            whole = {"since": since, "until": every[0]["at"]}
            expected = ["dead"] if since == every[1]["at"] else []
            for which in ({}, {"service": "dm_check"}, {"kinds": ["dead"]}, {"severity": "warning"}, {"client": "ada"}):
                assert await kinds(**whole, **which) == expected
        assert await events.faults(db) == 1
        await db.execute("UPDATE event SET at = at - interval '2 hours'")
        assert await events.faults(db) == 0


_MANY_EVENTS = """
INSERT INTO event (at, boot, kind, client_id, service, text, severity)
SELECT now(), 1, kind, 'c' || n % 5000, 's' || n % 5000, 'x', CASE kind WHEN 'fault' THEN 'error' ELSE 'info' END
  FROM generate_series(1, 20000) n, LATERAL (SELECT CASE n % 2000 WHEN 0 THEN 'fault' ELSE 'connect' END AS kind) k"""


async def test_events_are_found_along_their_indexes(bench: Bench) -> None:
    anything = (2**62, 10, None, None)
    ways = {
        "event_pkey": (events._NEWEST, anything),
        "event_serious": (events._SERIOUS, (*anything, None, None, ["warning", "error"])),
        "event_kind": (events._OF_KINDS, (*anything, ["fault", "dead"], None)),
        "event_service": (events._OF_SERVICE, (*anything, None, "s3")),
        "event_client": (events._OF_CLIENT, (*anything, None, None, None, "c7")),
    }
    async with bench.database.connection() as db:
        await db.execute(_MANY_EVENTS)
        await db.execute("ANALYZE event")
        for index, (statement, arguments) in ways.items():
            plan = "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {statement}", *arguments))
            assert index in plan, plan
            assert "Seq Scan on event" not in plan


async def test_only_the_newest_events_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_KEPT", 3)
    async with bench.database.connection() as db:
        await events.write(db, Boot(1), [(0.0, "connect", None, None, None, str(n), "info") for n in range(5)])
        await events.forget(db)
        assert [row["text"] for row in await events.page(db, 2**62, 10)] == ["4", "3", "2"]
        assert (await events.reach(db))[1] == 3


# Clients


async def names(
    bench: Bench, which: people.ClientFilter, sort: people.Sort, limit: int = 2, order: people.Order | None = None
) -> tuple[list[str], dict[str, dict[str, object]]]:
    """The clients of all pages in order, and their rows."""
    found: dict[str, dict[str, object]] = {}
    ids: list[str] = []
    after: people.ClientPlace | None = None
    async with bench.database.connection() as db:
        while True:
            rows, after = await people.page(db, which, sort, after, limit, order)
            ids += [row["client_id"] for row in rows]
            found |= {row["client_id"]: row for row in rows}
            if after is None:
                return ids, found


async def test_clients_in_any_order_by_any_filter(bench: Bench) -> None:
    workers = {name: await bench.worker(name) for name in ("ada", "bob", "cleo", "dan", "eve")}
    for name, settled, dead, given_back, age in (
        ("ada", 5, 2, 0, 3),
        ("bob", 9, 0, 1, 2),
        ("cleo", 5, 0, 7, 1),
        ("dan", 0, 0, 0, 5),
    ):
        await bench.execute(
            """UPDATE membership SET settled = $2, dead = $3, given_back = $4,
                      last_access = now() - make_interval(hours => $5) WHERE client_id = $1""",
            name, settled, dead, given_back, age,
        )  # fmt: skip
    await bench.execute("UPDATE client SET deactivated = 'x' WHERE client_id = 'bob'")
    await bench.execute("UPDATE client SET registered = false WHERE client_id = 'cleo'")
    await bench.execute("UPDATE membership SET inactive = 'idle' WHERE client_id = 'dan'")
    await bench.execute("UPDATE membership SET joined = false WHERE client_id = 'eve'")
    await bench.execute("UPDATE client SET screen_name = 'Lovelace_100' WHERE client_id = 'ada'")
    await bench.held(workers["ada"], 3)
    every = people.ClientFilter()
    assert (await names(bench, every, "client_id"))[0] == ["ada", "bob", "cleo", "dan", "eve"]
    assert (await names(bench, every, "settled"))[0] == ["bob", "ada", "cleo", "dan", "eve"]
    assert (await names(bench, every, "dead"))[0][0] == "ada"
    assert (await names(bench, every, "given_back"))[0][:2] == ["cleo", "bob"]
    assert (await names(bench, every, "held"))[0] == ["ada", "bob", "cleo", "dan", "eve"]
    order, rows = await names(bench, every, "last_access")
    assert order == ["eve", "cleo", "bob", "ada", "dan"]
    assert (await names(bench, every, "last_access", order="asc"))[0] == ["dan", "ada", "bob", "cleo", "eve"]
    assert (await names(bench, every, "client_id", order="desc"))[0] == ["eve", "dan", "cleo", "bob", "ada"]
    assert (await names(bench, every, "state"))[0] == ["bob", "ada", "eve", "dan", "cleo"]
    assert (await names(bench, every, "state", order="asc"))[0] == ["cleo", "dan", "ada", "eve", "bob"]
    assert (await names(bench, every, "health"))[0] == ["ada", "bob", "cleo", "dan", "eve"]
    assert (await names(bench, every, "connected"))[0] == ["ada", "bob", "cleo", "dan", "eve"]
    async with bench.database.connection() as db:
        assert await people.count_matching(db, every) == 5
        assert await people.count_matching(db, people.ClientFilter(state="active", connected=False)) == 2
        assert await people.count_matching(db, people.ClientFilter(search="LOVE", health="ok")) == 1
    assert [rows[name]["held"] for name in ("ada", "bob")] == [1, 0]
    assert rows["ada"]["services"][0]["held"] == 1  # type: ignore[index]
    for sort in ("client_id", "settled"):
        assert (await names(bench, people.ClientFilter(state="deactivated"), sort))[0] == ["bob"]
        assert (await names(bench, people.ClientFilter(state="unregistered"), sort))[0] == ["cleo"]
        assert (await names(bench, people.ClientFilter(state="inactive"), sort))[0] == ["dan"]
        assert set((await names(bench, people.ClientFilter(state="active"), sort))[0]) == {"ada", "eve"}
        assert (await names(bench, people.ClientFilter(search="LOVE"), sort))[0] == ["ada"]
        assert (await names(bench, people.ClientFilter(search="e_1"), sort))[0] == ["ada"]
        assert "eve" not in (await names(bench, people.ClientFilter(service=bench.service), sort))[0]
        assert (await names(bench, people.ClientFilter(health="flagged"), sort))[0] == []
        assert len((await names(bench, people.ClientFilter(health="ok"), sort))[0]) == 5


async def test_how_many_clients_there_are(bench: Bench) -> None:
    for name in ("ada", "bob", "cleo"):
        await bench.worker(name)
    await bench.execute("UPDATE client SET deactivated = 'x' WHERE client_id = 'bob'")
    await bench.execute("UPDATE membership SET last_access = now() - interval '1 hour' WHERE client_id = 'cleo'")
    await bench.execute(
        "INSERT INTO session (session_id, client_id, boot, address) SELECT gen_random_uuid(), 'ada', $1, 'here'"
        " FROM generate_series(1, 2)",
        bench.boot,
    )
    async with bench.database.connection() as db:
        found = await people.count_clients(db)
    assert (found.registered, found.connected, found.active, found.deactivated) == (3, 1, 2, 1)
    assert (found.watched, found.flagged, found.active_in[bench.service]) == (0, 0, 2)
