"""How long things take from end to end, each beside what cannot be had for less."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from statistics import median
from time import perf_counter
from uuid import uuid4

from coordinator.model import Boot, ClientId, Demand, ServiceId, ServiceSettings, SessionId
from coordinator.store import claims
from coordinator.store.pool import Database
from tests.bench.asking import asks
from tests.bench.figures import Figure, percentile
from tests.bench.importing import file_of_keys, importing
from tests.bench.peer import Peer, submission, volunteer
from tests.bench.world import Program, World

SESSIONS = 200


async def measure(world: World, rounds: int, count: int, kills: int) -> list[Figure]:
    """Measure all of them, with so many asks (`count`) and `kills` to a round."""
    async with AsyncExitStack() as stack:
        return [
            *await ask_and_submit(world, rounds, count, stack),
            *await to_hands(world, rounds, count // 4, stack),
            *await kill_to_hands(world, rounds, kills, stack),
            *await beside_an_import(world, rounds, count, stack),
        ]


async def ask_and_submit(world: World, rounds: int, count: int, stack: AsyncExitStack) -> list[Figure]:
    """Time asks and submits, each until its answer; the pool is full, the sessions take turns."""
    peers = await _volunteers(world, SESSIONS, "turn", stack)
    echo = await _echo(stack)
    buckets, stored, trips, claimed = [], [], [], []
    for _ in range(rounds):
        await world.wait_items("dm_check", 2 * count * 180)
        await world.pool_filled("dm_check", count + 20)
        turn = cycle(peers)
        asked, done, trip = [], [], []

        for _ in range(count):
            peer = next(turn)
            begun = perf_counter()
            await peer.send("ask", service="dm_check", count=1)
            bucket = await peer.until("bucket")
            asked.append(perf_counter() - begun)

            fields = submission(bucket)
            begun = perf_counter()
            await peer.send("submit", **fields)
            await peer.until("stored")
            done.append(perf_counter() - begun)

            begun = perf_counter()
            await echo.connection.send("7000" + "x" * 60)
            await echo.connection.recv(decode=False)
            trip.append(perf_counter() - begun)

        buckets.append(asked)
        stored.append(done)
        trips.append(trip)
        claimed.append(await _bare_claims(world, 50))

    base = f"bare round trip of a frame that long {_ms(trips)}, bare claim statement {_ms(claimed)}"
    return [
        *_percentiles(f"ask → bucket, {SESSIONS} sessions in turn", buckets, (3, 10), base),
        *_percentiles("submit → stored, 180 results", stored, None, ""),
    ]


async def to_hands(world: World, rounds: int, count: int, stack: AsyncExitStack) -> list[Figure]:
    """Time an item that an admin adds, or prioritises, until it is in the hands of an idle client that waits.

    What is prioritised was settled before, so it is checked again.
    """
    (peer,) = await _volunteers(world, 1, "idle", stack)
    admin = await world.admin()
    stack.push_async_callback(admin.close)
    await world.wait_items("dm_check", 0)
    added: list[list[float]] = []
    prioritised: list[list[float]] = []

    for number in range(rounds):
        for found in (added, prioritised):
            times = []
            for n in range(count):
                key = f"new{number}-{n}"
                await peer.request("ask", service="dm_check", count=1)
                await asyncio.sleep(0.01)  # it has looked, and waits

                begun = perf_counter()
                if found is added:
                    await admin.send("item.add", items=[{"key": key}], services=["dm_check"])
                else:
                    await admin.send("item.prioritize", keys=[key], service="dm_check")
                bucket = await peer.until("bucket")
                times.append(perf_counter() - begun)

                await admin.receive()
                await peer.request("submit", **submission(bucket))
            found.append(times)

    return [
        *_percentiles("added → in the hands of a waiting client", added, (4, 15), ""),
        *_percentiles("prioritised → in the hands of a waiting client", prioritised, (4, 15), ""),
    ]


async def kill_to_hands(world: World, rounds: int, kills: int, stack: AsyncExitStack) -> list[Figure]:
    """Time kill -9 of a client's process until its bucket is in the hands of another that waits."""
    found = []
    for number in range(rounds):
        await world.wait_items("dm_check", kills * 180)
        names = [f"victim{number}-{n}" for n in range(kills)]
        await world.register(names)
        holders = [await Program.start("tests.bench.holder", world.url, name) for name in names]
        for holder in holders:
            stack.push_async_callback(holder.end)
        for holder in holders:
            await holder.hear()

        (peer,) = await _volunteers(world, 1, f"heir{number}-", stack)
        times = []
        for holder in holders:
            await peer.request("ask", service="dm_check", count=1)
            await asyncio.sleep(0.05)  # it has looked, and waits
            begun = perf_counter()
            holder.process.kill()
            bucket = await peer.until("bucket")
            times.append(perf_counter() - begun)
            await peer.request("submit", **submission(bucket))
        await peer.close()
        found.append(times)

    base = f"kill -9 → the end of a bare connection {_ms([await _bare_kills(rounds)])}"
    return _percentiles("kill -9 → in the hands of another", found, (7, 50), base)


async def _bare_kills(count: int) -> list[float]:
    """Time kill -9 of such a process until a server without anything of ours hears that its connection has ended."""
    ended = asyncio.Queue[float]()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.put_nowait(perf_counter())
        writer.close()

    times = []
    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        for _ in range(count):
            holder = await Program.start("tests.bench.holder", str(server.sockets[0].getsockname()[1]))
            await holder.hear()
            begun = perf_counter()
            holder.process.kill()
            times.append(await ended.get() - begun)
            await holder.end()
    return times


IMPORTED = 2_000_000
"""Items of a file that is not through before a round is."""


async def beside_an_import(world: World, rounds: int, count: int, stack: AsyncExitStack) -> list[Figure]:
    """Time asks while a file is imported into another service."""
    (peer,) = await _volunteers(world, 1, "beside", stack)
    found = []
    for number in range(rounds):
        with file_of_keys(IMPORTED, f"beside{number}-") as file:
            async with importing(world, file, "follower_check") as importer:
                there = await world.sql("SELECT max(item_id) FROM item")
                async with asyncio.timeout(10):
                    while await world.sql("SELECT max(item_id) FROM item") == there:  # noqa: ASYNC110 - nothing tells
                        await asyncio.sleep(0.02)
                found.append(await asks(world, peer, count))
                assert importer.returncode is None, "the import was over too early"
        await world.sql("TRUNCATE item, enrolment, waiting")
    return _percentiles("ask → bucket beside an import", found, (2, 10), "")


async def _volunteers(world: World, count: int, prefix: str, stack: AsyncExitStack) -> list[Peer]:
    names = [f"{prefix}{n}" for n in range(count)]
    await world.register(names)
    peers = [await volunteer(world.url, name) for name in names]
    for peer in peers:
        stack.push_async_callback(peer.close)
    return peers


async def _echo(stack: AsyncExitStack) -> Peer:
    program = await Program.start("tests.bench.echo")
    stack.push_async_callback(program.end)
    peer = await Peer.open(f"ws://127.0.0.1:{(await program.hear())['port']}")
    stack.push_async_callback(peer.close)
    return peer


async def _bare_claims(world: World, count: int) -> list[float]:
    """Time the claim statement by itself, for one bucket; it is taken back each time."""
    database = Database(world.dsn, size=2)
    await database.open()
    times: list[float] = []

    async with database.connection() as db:
        service = ServiceId(await db.fetchval("SELECT service_id FROM service WHERE name = 'dm_check'"))
        settings = ServiceSettings(max_held_buckets=10_000, newcomer_buckets=10_000)
        demand = Demand(ClientId("turn0"), SessionId(uuid4()), "127.0.0.1")
        for _ in range(count):
            undo = db.transaction()
            await undo.start()
            begun = perf_counter()
            assert (await claims.claim(db, service, [demand], Boot(1), settings)).claimed
            times.append(perf_counter() - begun)
            await undo.rollback()

    await database.close()
    return times


def _percentiles(
    name: str, rounds: Sequence[Sequence[float]], goals: tuple[float, float] | None, base: str
) -> list[Figure]:
    p50, p99 = ("", "") if goals is None else (f"<= {goals[0]}", f"<= {goals[1]}")
    return [
        Figure(f"{name}, p50", "ms", [percentile(times, 0.5) * 1000 for times in rounds], p50, base),
        Figure(f"{name}, p99", "ms", [percentile(times, 0.99) * 1000 for times in rounds], p99),
    ]


def _ms(rounds: Sequence[Sequence[float]]) -> str:
    return f"{median(percentile(times, 0.5) for times in rounds) * 1000:.2f} ms"
