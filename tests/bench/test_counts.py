"""Cost of a bucket, where it can be counted exactly: a change that makes it dearer fails here, on any machine."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from uuid import uuid4

import msgspec
import pytest

from coordinator import processes
from coordinator.admin.new_items import read_items
from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, ServiceId
from coordinator.serve.client_channel import CODEC
from coordinator.serve.connection import HttpConnection
from coordinator.services.dm_check import DmCheck
from coordinator.store import adding, building, claims, results
from coordinator.store.item_copy import encode_items
from coordinator.store.pool import Connection, Database
from coordinator.store.results import CheckedSubmit
from coordinator.wire.client import Submit
from coordinator.wire.codec import encode
from tests.bench.peer import Peer
from tests.flow.room import stop_clock
from tests.harness import Admin, Message, Server, Volunteer, secret_of, submission
from tests.serve.tools import eventually, value
from tests.store.bench import Bench, blocked
from tests.store.bench import submit as settling

pytestmark = pytest.mark.measured

CROWD = 16
SIZE = 180

HOT = ("claims", "results", "copy", "item_changes", "building", "buckets", "adding", "items", "pool")
"""Where statements of asks and submits stand."""


@pytest.fixture
async def bench(database: Database) -> Bench:
    """A service without items."""
    return await Bench.make(database)


@pytest.fixture
async def crowd(server: Server, admin: Admin) -> list[Volunteer]:
    """Clients of a node whose pool is full and whose clock stands still."""
    peers = [await server.volunteer(f"crowd{n}") for n in range(CROWD)]
    for part in range(CROWD):
        await admin.add(SIZE, f"part{part}-")

    async def filled() -> bool:
        return bool(await value(server.database, "SELECT count(*) = $1 FROM bucket WHERE state = 'ready'", CROWD))

    await eventually(filled, "the pool is full")
    await stop_clock(server.node)
    return peers


def statements(server: Server) -> Counter[str]:
    found = server.node.parts.core.database.load.snapshot().statements
    return Counter({count.statement: count.calls for count in found if count.statement.partition(".")[0] in HOT})


async def together(server: Server, crowd: Sequence[Volunteer]) -> list[Message]:
    """Hand a bucket to each; all but the first ask while the first one's claim is under way."""
    dispatcher = server.node.parts.work.grant.dispatcher(ServiceId(1))
    async with dispatcher.claiming:
        first = asyncio.ensure_future(crowd[0].ok("ask", service="dm_check", count=1))
        await first
        await asyncio.gather(*(peer.ok("ask", service="dm_check", count=1) for peer in crowd[1:]))
    pushed = [await peer.push("bucket") for peer in crowd]
    await dispatcher.built_ahead()
    return pushed


async def test_statements_of_sixteen_buckets_that_are_asked_for_and_submitted_together(
    server: Server, crowd: list[Volunteer]
) -> None:
    before = statements(server)
    buckets = await together(server, crowd)
    # Once it is looked whether more can be made, since few are left.
    assert statements(server) - before == Counter({"claims.claim": 2, "building.look": 1})

    before = statements(server)
    async with server.database.transaction() as db:
        # Both workers are kept busy, with one submit each, until all the others have come.
        held = [BucketId(bucket["bucket_id"]) for bucket in buckets[:2]]
        await db.execute("SELECT FROM bucket WHERE bucket_id = ANY ($1::uuid[]) FOR UPDATE", held)
        answers = []
        async with server.database.connection() as watch:
            for n, (peer, bucket) in enumerate(zip(crowd, buckets, strict=True)):
                answers.append(peer.send("submit", **submission(bucket)))
                if n < len(held):
                    await blocked(watch, n + 1)
        async with asyncio.timeout(10):
            while len(server.node.parts.work.commits._queue) < CROWD - len(held):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
    stored = await asyncio.gather(*answers)
    assert [answer["stored"] for answer in stored] == [SIZE] * CROWD
    # With BEGIN and COMMIT twelve, and two claims: 0.9 a bucket here, a third of it under load.
    assert statements(server) - before == Counter({"results.settle": 3, "copy.result": 3})


async def test_writes_to_a_client_of_what_is_pushed_together(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that go to one client at a time go in one call of the system."""
    volunteer = await server.volunteer("ada")
    await admin.add(2 * SIZE)

    async def filled() -> bool:
        return bool(await value(server.database, "SELECT count(*) = 2 FROM bucket WHERE state = 'ready'"))

    await eventually(filled, "the pool is full")
    await stop_clock(server.node)
    writes: list[int] = []
    send = HttpConnection.send_data

    def counted(connection: HttpConnection) -> None:
        if connection.protocol.writes:
            writes.append(len(connection.protocol.writes))
        send(connection)

    monkeypatch.setattr(HttpConnection, "send_data", counted)
    await volunteer.ok("ask", service="dm_check", count=2)
    buckets = [await volunteer.push("bucket") for _ in range(2)]
    assert writes in ([1], [1, 1]), "the answer may come before its buckets are claimed"

    assert len({bucket["bucket_id"] for bucket in buckets}) == 2

    # More than `MAX_UNSENT_BYTES` is not kept for the end of the turn.
    writes.clear()
    (session,) = server.node.parts.core.registry.sessions.values()
    for _ in range(10):
        session.push(b'{"type":"probe","text":"%s"}' % (b"x" * 16 * 1024))
    assert len(writes) == 2
    for _ in range(10):
        await volunteer.push("probe")
    assert len(writes) == 3


async def found_empty(server: Server) -> None:
    """Wait until those who ask have been told that there is nothing."""
    dispatcher = server.node.parts.work.grant.dispatcher(ServiceId(1))

    async def found() -> bool:
        return dispatcher.found_empty

    await eventually(found, "the pool was found empty")


async def test_statements_from_an_item_that_is_added_to_the_hands_of_a_client_that_waits(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await stop_clock(server.node)
    await volunteer.ok("ask", service="dm_check", count=1)
    await found_empty(server)

    before = statements(server)
    await admin.ok("item.add", items=[{"key": "new"}], services=["dm_check"])
    await volunteer.push("bucket")
    # `pool.flush` waits for the disk, after whoever waited was served.
    assert statements(server) - before == Counter(
        {"adding.add": 1, "pool.flush": 1, "building.make": 1, "claims.claim": 1}
    )


async def test_statements_from_an_item_that_is_prioritised_to_the_hands_of_a_client_that_waits(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.ok("item.add", items=[{"key": "urgent"}], services=["follower_check"])
    await stop_clock(server.node)
    await volunteer.ok("ask", service="dm_check", count=1)
    await found_empty(server)

    before = statements(server)
    await admin.ok("item.prioritize", keys=["urgent"], service="dm_check")
    await volunteer.push("bucket")
    await server.node.parts.work.grant.dispatcher(ServiceId(1)).built_ahead()

    # With BEGIN and COMMIT nine; behind the claim it is looked whether more can be made.
    assert statements(server) - before == Counter(
        {
            "building.lock": 1,
            "item_changes.by_keys": 1,
            "item_changes.lock": 1,
            "item_changes.take": 1,
            "building.put": 1,
            "claims.claim": 1,
            "building.look": 1,
            "pool.flush": 1,
        }
    )


async def test_statements_from_the_end_of_a_session_to_the_hands_of_another(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(3)
    await volunteer.bucket()
    waiting = await server.volunteer("waiting")
    await stop_clock(server.node)
    await waiting.ok("ask", service="dm_check", count=1)
    await found_empty(server)

    before = statements(server)
    volunteer.cut()
    await waiting.push("bucket")
    assert statements(server) - before == Counter({"claims.release_session": 1, "claims.claim": 1})


async def written(db: Connection) -> Counter[str]:
    """Count the rows that this connection has written: `insert bucket`, `update bucket`, …"""
    rows = await db.fetch("SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_xact_user_tables")
    return Counter(
        {
            f"{what} {row['relname']}": row[column]
            for row in rows
            for what, column in (("insert", "n_tup_ins"), ("update", "n_tup_upd"), ("delete", "n_tup_del"))
        }
    )


async def test_rows_that_are_written_for_a_bucket(bench: Bench) -> None:
    workers = [await bench.worker(f"w{n}") for n in range(CROWD)]
    for _ in workers:
        await bench.bucket(SIZE)

    async with bench.database.transaction() as db:
        before = await written(db)
        demands = [worker.demand for worker in workers]
        got = (await claims.claim(db, bench.service, demands, bench.boot, bench.settings)).claimed
        outcomes = await results.settle(db, [settling(claimed) for claimed in got])
        assert await written(db) - before == Counter(
            {
                "update bucket": 2 * CROWD,
                "insert claim": CROWD,
                "update claim": CROWD,
                "insert new_change": CROWD,
                "insert result": SIZE * CROWD,
            }
        )
    assert [outcome is not None and outcome.stored for outcome in outcomes] == [SIZE] * CROWD


async def test_rows_that_are_written_to_add_many_items(bench: Bench) -> None:
    """No row for each but in the catalogue."""
    await bench.execute("SELECT setval('item_item_id_seq', 1023)")
    async with bench.database.transaction() as db:
        before = await written(db)
        new = await adding.add_new(db, [(f"new{n:04}", None, "{}") for n in range(10 * SIZE)])
        await adding.join_new(db, bench.service, new, 100, 0.0)
        assert await written(db) - before == Counter(
            {"insert item": 10 * SIZE, "insert enrolment": 2, "insert waiting": 2, "insert count_change": 2}
        )


async def test_bytes_of_the_log_to_add_and_make_a_bucket(bench: Bench) -> None:
    """The catalogue's row and its two index entries are most of it."""

    async def position(db: Connection) -> int:
        return int(await db.fetchval("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"))

    await bench.waiting(1)
    async with bench.database.transaction() as db:
        await db.execute("SELECT pg_current_xact_id()")
        before = await position(db)
        new = await adding.add_new(db, [(f"new{n:05}", None, "{}") for n in range(100 * SIZE)])
        await adding.join_new(db, bench.service, new, 100, 0.0)
        added = await position(db)
        await building.make(db, bench.service, 100 * SIZE, SIZE, short=False)
        made = await position(db)
    assert (added - before) / (100 * SIZE) < 300
    assert (made - added) / (100 * SIZE) < 120


async def test_statements_of_adding_many_items(server: Server, admin: Admin) -> None:
    await stop_clock(server.node)
    before = statements(server)
    names = [{"key": f"many{n}"} for n in range(1000)]
    await admin.ok("item.add", items=names, services=["dm_check"])
    added = Counter({"adding.reserve": 1, "copy.item": 1, "adding.join_range": 1, "pool.flush": 1})
    assert statements(server) - before == added

    before = statements(server)
    assert (await admin.ok("item.add", items=names, services=["dm_check"]))["known"] == 1000
    again = Counter({"adding.reserve": 1, "copy.item": 1, "adding.add": 1, "adding.known": 1, "adding.join": 1})
    assert statements(server) - before == again + Counter({"pool.flush": 1})


async def test_statements_of_an_idle_node(server: Server) -> None:
    """The part of the clock that has nothing to do asks nothing, whatever the number of services."""

    def calls() -> int:
        found = server.node.parts.core.database.load.snapshot().statements
        return sum(count.calls for count in found)

    await asyncio.sleep(2)  # behind the start
    before, begun = calls(), monotonic()
    await asyncio.sleep(5)
    assert calls() - before <= 8 * (monotonic() - begun)


async def test_rows_that_are_written_to_make_a_bucket(bench: Bench) -> None:
    await bench.waiting(10 * SIZE)
    async with bench.database.transaction() as db:
        before = await written(db)
        made, _ = await building.make(db, bench.service, 10 * SIZE, SIZE, short=False)
        assert made == 10
        assert await written(db) - before == Counter(
            {
                "insert bucket": 10,
                "insert bucket_items": 10,
                "insert open_bucket": 10,
                "delete waiting": 2,
                "insert count_change": 1,
            }
        )


async def test_bytes_on_the_wire_for_a_bucket(server: Server, admin: Admin) -> None:
    await admin.add(SIZE)
    peer = await Peer.open(f"{server.url}/v1/client")
    await peer.request("hello", protocol=1, client_id="ada", secret=secret_of("ada"))
    choice = {"service": "dm_check", "profile": {"source": "ada"}}
    await peer.request("register", screen_name="ada", services=[choice])

    await peer.request("ask", service="dm_check", count=1)
    frame = await peer.connection.recv(decode=False)
    bucket = msgspec.json.decode(frame)
    assert bucket["type"] == "bucket"
    items = [{"item": item["item"], "key": item["key"]} for item in bucket["items"]]
    assert len(items) == SIZE
    # An item takes what it takes as the shortest JSON, and a bucket little beside its items.
    assert len(frame) - len(msgspec.json.encode(items)) <= 200

    await peer.send("submit", **submission(bucket))
    answer = await peer.connection.recv(decode=False)
    assert msgspec.json.decode(answer)["stored"] == SIZE
    assert len(answer) <= 160
    await peer.close()


def _submit(items: Sequence[int]) -> bytes:
    results = msgspec.Raw(msgspec.json.encode([{"item": item, "dm": "DM"} for item in items]))
    return encode(Submit(bucket_id=str(uuid4()), claim=123456, results=results, final=True, ref=1))


def _read(frame: bytes) -> CheckedSubmit:
    """From a frame to what the store takes."""
    submit = CODEC.decode(frame.decode())
    assert isinstance(submit, Submit)
    rows = DmCheck("dm_check", None).reader().read(submit.results)
    return CheckedSubmit(
        ServiceId(1), BucketId(uuid4()), ClaimNumber(submit.claim), ClientId("c"), rows.rows, "1" * SIZE, True
    )


def test_a_submit_sets_off_no_search_for_garbage() -> None:
    frame = _submit(range(SIZE))
    searches: list[str] = []

    def searched(phase: str, info: dict[str, int]) -> None:
        searches.append(phase)

    usual = gc.get_threshold()
    gc.callbacks.append(searched)
    try:
        kept = [_read(frame) for _ in range(20)]
        assert searches, "by default it does"
        processes.collect_seldom()
        searches.clear()
        kept += [_read(frame) for _ in range(20)]
        assert searches == []
    finally:
        gc.callbacks.remove(searched)
        gc.set_threshold(*usual)
        gc.unfreeze()
    assert len(kept) == 40


def test_allocations_of_a_submit() -> None:
    frame = _submit(range(1_000_000, 1_000_000 + SIZE))
    kept = [_read(frame)]  # what is made once is made
    gc.collect()
    before = sys.getallocatedblocks()
    kept.append(_read(frame))
    gc.collect()
    # Of each item a tuple and a number; the texts of its results are shared.
    assert sys.getallocatedblocks() - before <= 2 * SIZE + 60
    assert [item for item, _ in kept[1].rows] == [ItemId(1_000_000 + n) for n in range(SIZE)]

    tracemalloc.start()
    _read(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 18 * len(frame)


async def test_allocations_of_adding_many_items() -> None:
    given = [{"key": f"new{n:05}"} for n in range(10 * SIZE)]
    await read_items(given[:1], "handle")  # what is made once is made
    gc.collect()
    before = sys.getallocatedblocks()
    taken, _ = await read_items(given, "handle")
    gc.collect()
    assert sys.getallocatedblocks() - before <= len(given) + 60  # of each a tuple

    rows = list(taken.values())
    ids = [ItemId(1_000_000 + n) for n in range(len(rows))]
    tracemalloc.start()
    encoded = len(encode_items(ids, rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= 14 * encoded


async def test_memory_of_the_node_to_make_buckets(bench: Bench) -> None:
    """It sends eight random bytes for each item, and holds nothing of the buckets."""
    await bench.waiting(70 * SIZE)
    peaks = []
    async with bench.database.transaction() as db:
        for count in (20, 10, 40):  # by the first one the connection learns the statement
            tracemalloc.start()
            made, _ = await building.make(db, bench.service, count * SIZE, SIZE, short=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert made == count
    assert peaks[2] - peaks[1] <= 5 * 8 * 30 * SIZE
