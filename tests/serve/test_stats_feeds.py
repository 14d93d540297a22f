"""Many dashboards, slow ones, and a database that goes away."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import socket
from contextlib import AsyncExitStack
from time import monotonic, thread_time
from typing import Any

import pytest

from coordinator.errors import Unavailable
from coordinator.serve import feeds, pinger
from coordinator.wire import stats as wire
from coordinator.wire.codec import encode
from tests.bench.dashboards import Dashboard
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import PATIENCE, Server
from tests.serve.tools import RawPeer, eventually

CORE = 0.1
"""The share of a core that a thousand dashboards may take."""


class Growing:
    """A topic that is different each time, and large if asked for."""

    def __init__(self, size: int = 0) -> None:
        self.number = 0
        self.filling = "x" * size

    async def __call__(self) -> wire.FirstRows:
        self.number += 1
        return wire.FirstRows(self.number, [self.filling])


def replace(server: Server, topic: str, query: Any) -> feeds.Feed:
    feed = server.node.parts.statistics.feeds.feeds[topic]
    feed._query = query
    return feed


@pytest.mark.measured
async def test_a_thousand_dashboards_cost_one_computation_and_little_more(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await start_server()
    feed = replace(server, "overview", Growing(2000))
    encodings = itertools.count()

    def counted(message: Any) -> bytes:
        if isinstance(message, wire.Snapshot):
            next(encodings)
        return encode(message)

    monkeypatch.setattr("coordinator.serve.feeds.encode", counted)
    rounds: list[float] = []
    whole = feed._round

    async def timed() -> None:
        begun = thread_time()
        await whole()
        rounds.append(thread_time() - begun)

    monkeypatch.setattr(feed, "_round", timed)
    loop = asyncio.get_running_loop()
    dashboards = []
    for _ in range(1000):
        _, dashboard = await loop.create_connection(Dashboard, "127.0.0.1", server.node.port)
        server.stack.callback(dashboard.transport.close)
        dashboards.append(dashboard)
        dashboard.say(type="hello", protocol=1)
        dashboard.say(type="subscribe", topics=["overview"], interval=1)

    async def all_have_it() -> bool:
        subscriptions = feed._subscriptions.values()
        return len(subscriptions) == 1000 and all(one.sent for one in subscriptions)

    await eventually(all_have_it, "every one gets a first snapshot", 60)

    async def in_step() -> bool:
        return len({one.due for one in feed._subscriptions.values()}) == 1

    await eventually(in_step, "whenever they began, they come together", 60)
    rounds.clear()
    before, encoded, begun = feed._seq, next(encodings), loop.time()

    async def three_more() -> bool:
        return min(one.sent for one in feed._subscriptions.values()) >= before + 3

    await eventually(three_more, "every one gets three more", 60)
    passed = loop.time() - begun
    assert feed._seq - before <= passed + 2
    assert next(encodings) - encoded - 1 <= feed._seq - before
    assert sum(rounds) / passed < CORE, rounds


async def raw_viewer(server: Server, stack: AsyncExitStack) -> RawPeer:
    """A peer that reads only when told to, with small buffers on both sides."""
    known = set(server.node.parts.sessions.viewers)
    peer = await RawPeer.open(server, stack, receive_buffer=4096, path="/v1/stats")
    peer.say("hello", protocol=1)
    assert json.loads((await peer.read())[1])["type"] == "welcome"
    (session,) = server.node.parts.sessions.viewers - known
    session.connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return peer


async def test_a_slow_reader_gets_only_the_newest(server: Server) -> None:
    growing = Growing(300_000)
    feed = replace(server, "events", growing)
    quick = await server.viewer()
    async with AsyncExitStack() as stack:
        slow = await raw_viewer(server, stack)
        slow.say("subscribe", topics=["events"], interval=0.25)
        await quick.ok("subscribe", topics=["events"], interval=0.25)
        for _ in range(8):
            last = await quick.snapshot("events")
        assert max(one.unread() for one in server.node.parts.sessions.viewers) < 2 * 300_000, "nothing queues up"
        assert json.loads((await slow.read())[1])["type"] == "subscribed"
        first = json.loads((await slow.read())[1])
        second = json.loads((await slow.read())[1])
        assert first["seq"] < last["seq"] - 4
        assert second["seq"] >= last["seq"], "what came between was passed over"
        assert second["data"]["total"] == second["seq"]
    assert feed.computed == growing.number


async def test_who_reads_nothing_is_cut_off(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pinger, "STUCK_AFTER", 0.5)
    server = await start_server()
    replace(server, "events", Growing(300_000))
    async with AsyncExitStack() as stack:
        slow = await raw_viewer(server, stack)
        slow.say("subscribe", topics=["events"])

        async def gone() -> bool:
            return not server.node.parts.sessions.viewers

        await eventually(gone, "it ends")
        assert not server.node.parts.statistics.feeds.feeds["events"]._subscriptions


@pytest.mark.measured
async def test_a_snapshot_comes_each_second(server: Server) -> None:
    replace(server, "nodes", Growing())
    viewer = await server.viewer()
    loop = asyncio.get_running_loop()
    await viewer.ok("subscribe", topics=["nodes"], interval=1)
    await viewer.snapshot("nodes")
    await viewer.snapshot("nodes")
    begun = loop.time()
    for _ in range(3):
        await viewer.snapshot("nodes")
    assert loop.time() - begun == pytest.approx(3.0, abs=0.6)


async def test_nothing_is_looked_up_while_nobody_watches(server: Server) -> None:
    growing = Growing()
    feed = replace(server, "nodes", growing)
    viewer = await server.viewer()
    await asyncio.sleep(3 * feeds.FEED_TICK)
    assert growing.number == 0
    await viewer.ok("subscribe", topics=["nodes"], interval=0.25)
    await viewer.snapshot("nodes")
    await viewer.ok("unsubscribe", topics=["nodes"])
    await asyncio.sleep(2 * feeds.FEED_TICK)
    number = growing.number
    await asyncio.sleep(3 * feeds.FEED_TICK)
    assert growing.number == number == feed.computed


async def test_what_has_not_changed_is_not_sent_again(server: Server) -> None:
    computed = asyncio.Semaphore(0)

    async def same() -> wire.FirstRows:
        computed.release()
        return wire.FirstRows(1, ["same"])

    feed = replace(server, "nodes", same)
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["nodes"], interval=0.25)
    first = await viewer.snapshot("nodes")
    for _ in range(4):
        await within(computed.acquire(), PATIENCE)
    assert feed._seq == first["seq"]
    await viewer.ok("get", topic="nodes")
    assert viewer.pushes.empty()
    await viewer.ok("subscribe", topics=["nodes"], interval=0.25)
    assert (await viewer.snapshot("nodes"))["seq"] == first["seq"], "told anew when it is asked for anew"


async def test_who_subscribes_without_end_causes_few_rounds(server: Server) -> None:
    viewer, begun = await server.viewer(), monotonic()
    for _ in range(60):
        await viewer.ok("subscribe", topics=["nodes"])
    assert viewer.pushes.qsize() <= 2 + (monotonic() - begun) / feeds.ROUND_GAP


async def test_a_topic_that_fails_comes_back(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "TOPIC_RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(feeds, "TOPIC_FAULT_PAUSE", 0.05)
    failures: list[Exception] = [Unavailable("away"), ValueError("a bug"), Unavailable("away")]

    async def shaky() -> wire.FirstRows:
        if failures:
            raise failures.pop()
        return wire.FirstRows(0, [])

    replace(server, "nodes", shaky)
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["nodes", "services"], interval=0.25)
    await viewer.snapshot("nodes")
    assert not failures
    assert server.node.events.counts["fault"] == 1


async def test_the_last_viewer_may_leave_while_its_round_runs(server: Server) -> None:
    """A browser that changes pages does this: when the round is done, no snapshot is due any more."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> wire.FirstRows:
        begun.set()
        await may_end.wait()
        return wire.FirstRows(0, [])

    feed = replace(server, "nodes", slow)
    viewer = await server.viewer()
    await viewer.ok("subscribe", topics=["nodes"], interval=0.25)
    await within(begun.wait(), PATIENCE)
    await viewer.ok("unsubscribe", topics=["nodes"])
    may_end.set()

    async def idle() -> bool:
        return feed._fresh_until == -math.inf

    await eventually(idle, "the feed waits for its next subscriber")
    await viewer.ok("subscribe", topics=["nodes"], interval=0.25)
    await viewer.snapshot("nodes")
    assert not server.node.failed


@pytest.mark.parametrize(("now", "interval", "expected"), [(10.0, 1.0, 11.0), (10.1, 1.0, 11.0), (10.2, 1.0, 12.0)])
def test_short_intervals_end_in_step(now: float, interval: float, expected: float) -> None:
    assert feeds._next_due(now, interval) == expected


def test_long_intervals_are_as_long_as_they_are() -> None:
    assert feeds._next_due(10.2, 7.0) == pytest.approx(17.2)
