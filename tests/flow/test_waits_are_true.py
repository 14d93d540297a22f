"""The promise of `waiting`: whoever waits was told a reason, and it is the first that holds, by the database.

Anything in any order on a real node; the truth is found by statements of this test's own, one for each reason.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from coordinator.flow import wait_teller
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import configure, eventually, execute, report, set_state, value

MAY_HOLD = 2
"""Buckets that anyone may hold; a newcomer one, and twice as many with each item that it has settled."""

STEPS = 60

_READY = "SELECT bucket_id FROM bucket WHERE state = 'ready' AND split_at IS NULL"
_OFFERED = f"{_READY} AND bucket_id NOT IN (SELECT bucket_id FROM return_block WHERE client_id = $1 AND until > now())"
_HELD = "(SELECT count(*) FROM bucket WHERE client_id = $1)"

TRUTH = {
    "paused": "SELECT state = 'paused' FROM service WHERE name = 'dm_check' AND $1 <> ''",
    "reported": "SELECT report_until > now() FROM membership WHERE client_id = $1",
    "backing_off": "SELECT wait_until > now() FROM membership WHERE client_id = $1",
    "at_limit": f"SELECT {_HELD} >= greatest({MAY_HOLD} >> greatest(streak - 2, 0), 1) FROM membership"
    " WHERE client_id = $1",
    "newcomer": f"SELECT {_HELD} >= 1 AND settled = 0 FROM membership WHERE client_id = $1",
    "returned_all": f"SELECT EXISTS ({_READY}) AND NOT EXISTS ({_OFFERED})",
    "making": f"SELECT NOT EXISTS ({_READY}) AND $1 <> '' AND EXISTS (SELECT FROM waiting)",
    "no_items": f"SELECT NOT EXISTS ({_READY}) AND $1 <> ''",
}


@dataclass
class Told:
    """A client, what it holds, and what it was told."""

    peer: Volunteer
    pending: int = 0
    reason: str | None = None
    held: list[Message] = field(default_factory=list)

    async def ask(self, count: int) -> None:
        self.read()
        asked = await self.peer.ok("ask", service="dm_check", count=count)
        waiting = asked["waiting"]
        self.pending = asked["pending"]
        self.reason = waiting and waiting["reason"]
        self.read()

    def read(self) -> None:
        """Take in all that was pushed."""
        while not self.peer.pushes.empty():
            push = self.peer.pushes.get_nowait()
            if push["type"] == "bucket":
                self.held.append(push)
                self.pending -= 1
        while not self.peer.waits.empty():
            push = self.peer.waits.get_nowait()
            assert push["reason"] != "served"
            self.reason = push["reason"]


async def truth(database: Database, client: str) -> str | None:
    """The first reason that holds."""
    for reason, statement in TRUTH.items():
        if await value(database, statement, client):
            return reason
    return None


async def told_the_truth(database: Database, client: Told) -> bool:
    client.read()
    if not client.pending:
        return True
    return client.reason is not None and client.reason == await truth(database, client.peer.client_id)


class Steps:
    """The things that may happen, each to one of the clients or to all."""

    def __init__(self, server: Server, admin: Admin, random: Random) -> None:
        self.server = server
        self.admin = admin
        self.random = random
        self.added = 0

    async def ask(self, client: Told) -> None:
        await client.ask(self.random.choice((1, 1, 2)))

    async def submit(self, client: Told) -> None:
        if client.held:
            await client.peer.submit(client.held.pop())

    async def release(self, client: Told) -> None:
        if client.held:
            bucket = client.held.pop()
            await client.peer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])

    async def report(self, client: Told) -> None:
        await report(client.peer, retry_after=self.random.choice((0, 0, 30)))

    async def add(self, _: Told) -> None:
        self.added += 1
        await self.admin.add(self.random.choice((1, 2)), prefix=f"item{self.added}-", services=["dm_check"])

    async def pause(self, _: Told) -> None:
        await set_state(self.server, self.random.choice(("active", "active", "paused")))

    async def wait_no_more(self, client: Told) -> None:
        await execute(
            self.server.database,
            "UPDATE membership SET wait_until = NULL, report_until = NULL WHERE client_id = $1",
            client.peer.client_id,
        )
        await report(client.peer, retry_after=0)

    async def grow(self, client: Told) -> None:
        """It has settled enough to be no newcomer."""
        name = client.peer.client_id
        await execute(self.server.database, "UPDATE membership SET settled = 100 WHERE client_id = $1", name)

    def all(self) -> list[Callable[[Told], Awaitable[None]]]:
        often = [self.ask, self.add, self.release, self.ask]
        return [*often, *often, self.submit, self.report, self.pause, self.wait_no_more, self.grow]


@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_waits_was_told_the_reason_that_holds(
    start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(wait_teller, "TELL_INTERVAL", 0.01)
    random = Random(seed)
    await configure(database, bucket_size=1, max_held_buckets=MAY_HOLD, newcomer_buckets=1)
    server = await start_server()
    steps = Steps(server, await server.admin(), random)
    clients = [Told(await server.volunteer(name)) for name in ("ada", "bob", "cleo")]

    seen: set[str | None] = set()
    for number in range(STEPS):
        client, step = random.choice(clients), random.choice(steps.all())
        await step(client)
        for one in clients:

            async def good(one: Told = one) -> bool:
                return await told_the_truth(database, one)

            what = f"{number}: {step.__name__} of {client.peer.client_id}: {one}, true is "
            try:
                await eventually(good, what)
            except AssertionError:
                pytest.fail(what + str(await truth(database, one.peer.client_id)))
            seen.add(one.reason if one.pending else None)
    assert len(seen) > 4, seen
