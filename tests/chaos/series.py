"""The same fault many times, and how long each keeps the clients from work: `python -m tests.chaos.series [NAME …]`.

`kill_node`       a node is killed while its clients hold buckets, and they do not come back: others have all of these
                  buckets within its lease and 2 s; 10 times
`kill_postgres`   Postgres is killed under load: every client has had a submit stored within 15 s; 50 times
`fail_over`       the primary is lost for ever, and its synchronous standby takes over: within 10 s; 20 times
`restart`         a node is drained and started again, and then the other one, under 500 clients: all that it turned
                  away are welcomed again within 30 s; once each

After each series the checker decides whether every promise was kept: none is `broken`, such as that nothing which was
acknowledged is lost or stored twice, and no client is `blamed`.  `--times` repeats the fault more or less often.  Exit
code 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from time import monotonic

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench.figures import percentile
from tests.bench.peer import Message, Peer, secret_of
from tests.bounded import within
from tests.chaos.__main__ import tell
from tests.chaos.history import Fault, Follower, Given, History, Invoked, Ok, Recorder
from tests.chaos.processes import READY_WITHIN, NodeProcess
from tests.chaos.run import BUCKET, Order, Outcome, Scene, run
from tests.chaos.volunteers import SERVICE

HOLDERS = 5
"""Clients whose node is killed; each holds two buckets, and as many others wait for one."""

LAG = 0.2
"""Seconds before a failover in which the standby gets nothing more."""

PATIENCE = 120.0
"""Seconds after which a fault has stopped the work for good."""

Measure = Callable[[History], list[float]]


@dataclass(frozen=True, slots=True)
class Series:
    """A fault that is made some times; `measure` finds the seconds that each kept clients from work."""

    order: Order
    times: int
    goal: float
    what: str
    disturb: Callable[[int, Scene], Awaitable[None]]
    measure: Measure


# A node is killed


async def kill_nodes(times: int, scene: Scene) -> None:
    """Kill nodes in turn, each while its clients hold buckets that others wait for."""
    for number in range(times):
        doomed, other = scene.nodes[number % 2], scene.nodes[1 - number % 2]
        while not await scene.feeder.add([f"round{number}.{n}" for n in range(2 * HOLDERS * BUCKET)]):
            pass  # at the other node next time
        async with AsyncExitStack() as stack:
            holders = [await _Hand.at(doomed, f"holder{number}.{n}", scene.recorder, stack) for n in range(HOLDERS)]
            for holder in holders:
                await holder.ask(2)
            for holder in holders:
                await holder.take(2)
            waiting = [await _Hand.at(other, f"next{number}.{n}", scene.recorder, stack) for n in range(2 * HOLDERS)]
            for hand in waiting:
                await hand.ask(1)

            killed = monotonic()
            doomed.keep_down()
            await doomed.kill()
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                for hand in waiting:
                    group.create_task(hand.take(1))
            scene.recorder.note(Fault(killed, monotonic(), "kill_node", doomed.name))
            for hand in waiting:
                await hand.settle()

        doomed.start_again()
        await within(doomed.up.wait(), READY_WITHIN)


class _Hand:
    """A client that does as it is told, and writes it down."""

    def __init__(self, peer: Peer, name: str, recorder: Recorder) -> None:
        self._peer = peer
        self._name = name
        self._recorder = recorder
        self._buckets: list[Message] = []

    @classmethod
    async def at(cls, node: NodeProcess, name: str, recorder: Recorder, stack: AsyncExitStack) -> _Hand:
        """Begin a session at a node."""
        peer = await Peer.open(f"ws://127.0.0.1:{node.port}/v1/client")
        stack.callback(peer.connection.transport.abort)
        await peer.request("hello", protocol=1, client_id=name, secret=secret_of(name))

        # A node learns within a second of a service that was added at another one.
        while SERVICE not in [row["service"] for row in (await peer.request("services"))["services"]]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await peer.request("register", screen_name=name, services=[{"service": SERVICE}])
        return cls(peer, name, recorder)

    async def ask(self, count: int) -> None:
        await self._peer.request("ask", service=SERVICE, count=count)

    async def take(self, count: int) -> None:
        """Wait for so many buckets."""
        for _ in range(count):
            bucket = await self._peer.until("bucket")
            items = [item["item"] for item in bucket["items"]]
            place = bucket["bucket_id"], bucket["claim"]
            self._recorder.note(Given(Recorder.now(), self._name, self._name, *place, items))
            self._buckets.append(bucket)

    async def settle(self) -> None:
        """Submit all that it has."""
        for bucket in self._buckets:
            call, place = f"{self._name}.{bucket['claim']}", (bucket["bucket_id"], bucket["claim"])
            values = {item["item"]: f"{call}/{item['item']}" for item in bucket["items"]}
            sent = Invoked(Recorder.now(), call, self._name, self._name, "submit", *place, values, final=True)
            self._recorder.note(sent)
            results = [{"item": item, "token": value} for item, value in values.items()]
            fields = {"bucket_id": place[0], "claim": place[1], "results": results, "final": True}
            stored = await self._peer.request("submit", **fields)
            counts = stored["stored"], stored["discarded"], stored["closed"], stored["duplicate"]
            self._recorder.note(Ok(Recorder.now(), call, *counts))


def handed_on(history: History) -> list[float]:
    """Tell the seconds from each kill until the last of the buckets had another holder."""
    return [fault.until - fault.at for fault in history.faults]


# The database is lost, a node is restarted


class _Watch:
    """Sees who had something stored, by what the clients of a run write down."""

    def __init__(self, scene: Scene) -> None:
        self._clients = [name for group in scene.crowd for name in group.clients]
        self._follower = Follower(scene.folder)
        self._sent: dict[str, Invoked] = {}
        self._stored = dict.fromkeys(self._clients, 0.0)
        """When the last submit that was stored was sent, of each client."""

    async def all_store_again(self, since: float) -> None:
        """Wait until each client has had something stored that it sent after that moment."""
        async with asyncio.timeout(PATIENCE):
            while not self._all_have_stored(since):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.2)

    def _all_have_stored(self, since: float) -> bool:
        for event in self._follower.new_events():
            if isinstance(event, Invoked) and event.operation == "submit":
                self._sent[event.call] = event
            elif isinstance(event, Ok) and (sent := self._sent.pop(event.call, None)) is not None:
                self._stored[sent.client] = sent.at
        return min(self._stored.values()) > since


async def kill_postgres(times: int, scene: Scene) -> None:
    """Kill Postgres and start it, whenever all clients are at work."""
    watch = _Watch(scene)
    for _ in range(times):
        killed = monotonic()
        await scene.cluster.primary.crash()
        await scene.cluster.primary.start()
        await watch.all_store_again(killed)
        scene.recorder.note(Fault(killed, monotonic(), "kill_postgres", "primary"))


async def fail_over(times: int, scene: Scene) -> None:
    """Lose the primary for ever, whenever all clients are at work and a standby follows."""
    watch = _Watch(scene)
    for _ in range(times):
        lost = monotonic()
        await scene.cluster.fail_over(lag=LAG)
        await watch.all_store_again(lost)
        scene.recorder.note(Fault(lost, monotonic(), "fail_over", "primary"))


async def restart(times: int, scene: Scene) -> None:
    """Drain each node in turn; it comes back before the next one goes."""
    watch = _Watch(scene)
    for node in [*scene.nodes] * times:
        begun = monotonic()
        await node.drain()
        await within(node.up.wait(), READY_WITHIN)
        await watch.all_store_again(monotonic())
        scene.recorder.note(Fault(begun, monotonic(), "restart", node.name))


def all_at_work(history: History) -> list[float]:
    """Tell the seconds from each fault until every client had something stored that it sent since."""
    submits = [call for call in history.calls if call.invoked.operation == "submit" and isinstance(call.end, Ok)]
    found = []
    for fault in history.faults:
        first: dict[str, float] = {}
        for call in submits:
            if call.end is not None and call.invoked.at > fault.at:
                name = call.invoked.client
                first[name] = min(first.get(name, inf), call.end.at)
        found.append(max(first.values()) - fault.at)
    return found


def all_back(history: History) -> list[float]:
    """Tell the seconds from each fault until all whose sessions ended by it were welcomed again."""
    welcomed = defaultdict[str, list[float]](list)
    for event in history.began:
        welcomed[event.client].append(event.at)

    found = []
    for fault in history.faults:
        ends = [event for event in history.ended if fault.at <= event.at <= fault.until]
        back = [min((at for at in welcomed[end.client] if at > end.at), default=inf) for end in ends]
        found.append(max(back, default=inf) - fault.at)
    return found


LEASE = 15.0

_QUIET = Order(
    1,
    0.0,
    careful=True,
    items_a_client=6.0,  # enough that nobody waits for want of items
    flags=(f"--node-lease={LEASE}", "--ping-interval=20", "--ping-timeout=20"),
)
"""Nothing but the fault of the series happens, and these times are the defaults."""

SERIES = {
    "kill_node": Series(
        replace(_QUIET, clients=0),
        10,
        LEASE + 2.0,
        "node killed: buckets in other hands",
        kill_nodes,
        handed_on,
    ),
    "kill_postgres": Series(_QUIET, 50, 15.0, "Postgres killed: all at work", kill_postgres, all_at_work),
    "fail_over": Series(_QUIET, 20, 10.0, "failover: all at work", fail_over, all_at_work),
    "restart": Series(
        replace(_QUIET, clients=500, group=50, think=20.0, items_a_client=0.2, dead_after=600.0, drain=180.0),
        1,
        30.0,
        "node restarted, 500 clients: all back",
        restart,
        all_back,
    ),
}


def row_of(series: Series, outcome: Outcome) -> tuple[list[str], bool]:
    """Return the figures of a series, and whether they are good."""
    seconds = series.measure(outcome.history)
    blamed = sum(violation.rule.startswith("innocents") for violation in outcome.violations)
    broken = len(outcome.violations) - blamed
    good = max(seconds) <= series.goal and not outcome.violations and outcome.drained is not None
    return [
        f"{series.what} ({len(seconds)} times)",
        f"{percentile(seconds, 0.5):.1f} s, {max(seconds):.1f} s",
        f"<= {series.goal:g} s",
        f"{outcome.submits:,}",
        str(broken),
        str(blamed),
        "not in time" if outcome.drained is None else f"{outcome.drained:.1f} s",
        "yes" if good else "[red]no",
    ], good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SERIES)}; all if none is named")
    parser.add_argument("--times", type=int, help="how often, for each of them")
    parser.add_argument("--keep", type=Path, help="a folder for histories and logs")
    words = parser.parse_args()

    heads = "series", "p50, max", "goal", "stored", "broken", "blamed", "drained in", "good"
    table, all_good = Table(*heads), True
    for name in words.names or SERIES:
        series = SERIES[name]
        disturb = partial(series.disturb, words.times or series.times)
        keep = None if words.keep is None else words.keep / name
        outcome = uvloop.run(run(series.order, keep=keep, disturb=disturb))
        tell(outcome)
        row, good = row_of(series, outcome)
        table.add_row(*row)
        Console(stderr=True).print(f"{name}: {', '.join(row)}", markup=False)  # at once, since the others take minutes
        all_good &= good
    Console(width=120).print(table)
    sys.exit(not all_good)


if __name__ == "__main__":
    main()
