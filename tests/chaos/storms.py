"""Storms: `python -m tests.chaos.storms [drop] [surge] [demand] [--sessions 10000]`.

`drop`     half of the sessions lose their node, which is killed, and all are to be back at work within 30 s on two
           nodes, no submit refused for it, no second with more than 3 times the statements of a usual one
`surge`    from a fiftieth of the sessions to all of them within a minute
`demand`   13,000 asks a minute and nothing to give: less than 1 % of a core of the database

Two nodes with default settings, their Postgres and all clients share this machine.  Sessions come from many addresses
of it, 200 from each.  Exit code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.figures import percentile
from tests.bench.peer import volunteer
from tests.bench.world import Program, World, folder_for_postgres, world

PROCESSES = 2
EACH_ADDRESS = 200

THINK = 60.0
"""Seconds that a client works on a bucket, on average."""

BACK_WITHIN = 30.0
MOST_STATEMENTS = 3.0
STEADY = 5
"""Transactions by which a second may differ from another while nothing happens."""

ASKS_A_MINUTE = 13_000
MOST_OF_A_CORE = 0.01

_TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True, slots=True)
class Finding:
    """One figure of a storm beside its goal."""

    storm: str
    what: str
    found: str
    goal: str
    good: bool


class Storm:
    """Two nodes, and a crowd in some processes."""

    def __init__(self, nodes: list[World], programs: list[Program]) -> None:
        self.nodes = nodes
        self._programs = programs
        self._waits: list[float] = []

    async def join(self, first: int, count: int, *, registered: bool, think: float = THINK) -> None:
        """Add clients with these numbers."""
        urls = [node.url for node in self.nodes]
        for at in range(first, first + count, EACH_ADDRESS):
            names = [f"storm{n}" for n in range(at, min(first + count, at + EACH_ADDRESS))]
            if registered:
                await self.nodes[0].register(names)
            number = at // EACH_ADDRESS
            address = f"127.0.{1 + number // 200}.{1 + number % 200}"
            program = self._programs[number % len(self._programs)]
            await program.ask("join", names=names, urls=urls, address=address, think=think)

    async def count(self) -> dict[str, Any]:
        """Add up what all clients have done."""
        told = [await program.ask("count") for program in self._programs]
        total: dict[str, Any] = {
            name: sum(one[name] for one in told) for name in ("at_work", "stored", "drops", "attempts")
        }
        total["refused"] = sum((Counter(one["refused"]) for one in told), Counter())
        self._waits += [seconds for one in told for seconds in one["waits"]]
        return total

    async def waits(self) -> list[float]:
        """Tell the seconds from each ask to its bucket, since the last call."""
        await self.count()
        told, self._waits = self._waits, []
        return told

    async def all_at_work(self, sessions: int, within: float) -> float | None:
        """Wait until that many are at work; returns the seconds that took, None if it was not in time."""
        begun = monotonic()
        while monotonic() < begun + within:
            if (await self.count())["at_work"] >= sessions:
                return monotonic() - begun
            await asyncio.sleep(0.2)
        return None

    async def some_left(self, sessions: int) -> None:
        """Wait until fewer than that are at work."""
        while (await self.count())["at_work"] >= sessions:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)

    async def all_stored(self, submits: int) -> None:
        """Wait until so many submits of all clients together were stored."""
        while (await self.count())["stored"] < submits:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.2)

    async def calm(self) -> None:
        """Wait until what the arrival of clients caused is done: the database does the same in each of three seconds.

        Raises: TimeoutError
        """
        async with asyncio.timeout(60):
            while max(counts := await self.transactions(3)) - min(counts) > STEADY:
                pass

    async def transactions(self, seconds: float) -> list[int]:
        """Count the transactions of the database in each second."""
        counts, last = [], await self.nodes[0].sql(_TRANSACTIONS)
        for _ in range(round(seconds)):
            await asyncio.sleep(1)
            now = await self.nodes[0].sql(_TRANSACTIONS)
            counts.append(now - last)
            last = now
        return counts


async def drop(storm: Storm, sessions: int) -> list[Finding]:
    """Kill a node that holds half of the sessions."""
    await storm.nodes[0].ready_buckets("dm_check", 2 * sessions)
    await storm.join(0, sessions, registered=True)
    assert await storm.all_at_work(sessions, 300) is not None, "the crowd did not come in"
    usual = max(percentile([float(n) for n in await storm.transactions(20)], 0.9), 1.0)
    before = await storm.count()

    os.kill(storm.nodes[1].pid, signal.SIGKILL)
    counting = asyncio.create_task(storm.transactions(BACK_WITHIN))
    restarting = asyncio.create_task(storm.nodes[1].start(flags=flags_of(storm.nodes[1])))
    await storm.some_left(before["at_work"])
    back = await storm.all_at_work(sessions, 120)
    await restarting
    most = max(await counting)
    after = await storm.count()

    refused = after["refused"] - before["refused"]
    return [
        Finding("drop", f"{after['drops'] - before['drops']:,} of {sessions:,} sessions back at work",
                "not in 120 s" if back is None else f"{back:.1f} s", f"<= {BACK_WITHIN:g} s",
                back is not None and back <= BACK_WITHIN),
        Finding("drop", "submits refused", str(dict(refused)), "none", not refused),
        Finding("drop", "transactions in the busiest second, against a usual one",
                f"{most / usual:.1f} ({most} / {usual:.0f})", f"<= {MOST_STATEMENTS:g}",
                most <= MOST_STATEMENTS * usual),
    ]  # fmt: skip


async def surge(storm: Storm, sessions: int) -> list[Finding]:
    """Let clients that nobody knows come in within a minute, beside some that work."""
    few = max(sessions // 45, 4)
    await storm.nodes[0].ready_buckets("dm_check", 2 * sessions)
    await storm.join(0, few, registered=True, think=2.0)
    assert await storm.all_at_work(few, 120) is not None, "the first ones did not come in"
    await storm.all_stored(3 * few)
    quiet = await storm.waits()

    begun = monotonic()
    first = -(-few // EACH_ADDRESS) * EACH_ADDRESS
    for at in range(0, sessions - few, EACH_ADDRESS):
        await storm.join(first + at, min(EACH_ADDRESS, sessions - few - at), registered=False)
        await asyncio.sleep(max(0.0, begun + 60 * at / sessions - monotonic()))
    rest = await storm.all_at_work(sessions, 120)
    total = monotonic() - begun
    told, crowded = await storm.count(), await storm.waits()
    before, during = (f"{percentile(waits, 0.99) * 1000:.0f} ms" if waits else "nobody" for waits in (quiet, crowded))
    return [
        Finding("surge", f"{few:,} to {sessions:,} sessions, all at work",
                "not in time" if rest is None else f"{total:.0f} s",
                "<= 90 s", rest is not None and total <= 90),
        Finding("surge", "submits refused", str(dict(told["refused"])), "none", not told["refused"]),
        Finding("surge", "ask → bucket meanwhile, p99 (before)",
                f"{during} ({before})", "told", True),
    ]  # fmt: skip


async def demand(storm: Storm, sessions: int) -> list[Finding]:
    """Ask far more often than there is anything to give."""
    node, seconds, clients = storm.nodes[0], 20.0, 20
    await node.wait_items("dm_check", 0)
    names = [f"asker{n}" for n in range(clients)]
    await node.register(names)
    async with AsyncExitStack() as stack:
        peers = []
        for name in names:
            peers.append(await volunteer(node.url, name))
            stack.push_async_callback(peers[-1].close)

        await storm.calm()
        idle = await node.cost()
        await asyncio.sleep(seconds / 2)
        begun = await node.cost()
        end, asks = monotonic() + seconds, 0
        while monotonic() < end:
            for peer in peers:
                await peer.send("ask", ref=0, service="dm_check", count=1, wait=False)
                await peer.connection.recv()
            asks += clients
            await asyncio.sleep(clients * 60 / ASKS_A_MINUTE)
        spent = (await node.cost()).since(begun)

    share = max(0.0, spent.postgres / seconds - begun.since(idle).postgres / (seconds / 2))
    return [
        Finding("demand", f"{asks * 60 / seconds:,.0f} asks a minute and nothing to give: of a core of the database",
                f"{100 * share:.1f} %, {spent.calls} statements", f"< {100 * MOST_OF_A_CORE:g} %",
                share < MOST_OF_A_CORE),
    ]  # fmt: skip


STORMS = {"drop": drop, "surge": surge, "demand": demand}


def flags_of(node: World) -> list[str]:
    """The flags of a node: its name, and from its second start on the port that its clients know."""
    port = node.url.rpartition(":")[2] or "0"
    return ["--node-name", node.folder.name, "--port", port]


@asynccontextmanager
async def stormy() -> AsyncIterator[Storm]:
    """Two nodes on a fresh Postgres, and processes for the clients; all is gone at the end."""
    async with world() as first, AsyncExitStack() as stack:
        second = World(await asyncio.to_thread(folder_for_postgres, "second"), first.postgres)
        stack.callback(shutil.rmtree, second.folder)
        second.token = first.token
        stack.push_async_callback(second.stop)
        for node in (first, second):
            await node.start(flags=flags_of(node))

        programs = []
        for _ in range(PROCESSES):
            programs.append(await Program.start("tests.chaos.stormers"))
            stack.push_async_callback(programs[-1].end)
        yield Storm([first, second], programs)


async def run(names: list[str], sessions: int) -> list[Finding]:
    """Let each storm blow, on nodes of its own."""
    found = []
    for name in names:
        async with stormy() as storm:
            found += await STORMS[name](storm, sessions)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storms", nargs="*", metavar="STORM", help=f"of {', '.join(STORMS)}; all if none is named")
    parser.add_argument("--sessions", type=int, default=10_000)
    words = parser.parse_args()

    found = uvloop.run(run(words.storms or list(STORMS), words.sessions))
    table = Table("storm", "what", "found", "goal")
    for finding in found:
        table.add_row(
            finding.storm, finding.what, finding.found if finding.good else f"[red]{finding.found}", finding.goal
        )
    Console().print(table)
    sys.exit(not all(finding.good for finding in found))


if __name__ == "__main__":
    main()
