"""Hellos that come together are dealt with together, and each has its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from coordinator.model import ClientId
from coordinator.store import clients
from coordinator.store.clients import KnownClient
from coordinator.store.pool import Connection, Database
from tests.bounded import within
from tests.harness import PATIENCE, Server, secret_of
from tests.serve.tools import eventually, value

NAMES = [f"client{n}" for n in range(40)]


def statements_of_clients(server: Server) -> int:
    """Count the node's statements about clients and their sessions until now."""
    counts = server.node.parts.core.database.load.snapshot().statements
    return sum(count.calls for count in counts if count.statement.startswith("clients."))


async def register_all(server: Server) -> None:
    """Register the clients, and let them go again."""
    for name in NAMES:
        await (await server.volunteer(name)).close()


async def test_a_crowd_that_connects_costs_few_statements(server: Server) -> None:
    await register_all(server)
    peers = [await server.client() for _ in NAMES]
    open_sessions = "SELECT count(*) FROM session WHERE ended_at IS NULL"

    async def all_ended() -> bool:
        return bool(await value(server.database, open_sessions) == 0)

    await eventually(all_ended, "the sessions before have ended")

    before = statements_of_clients(server)
    hellos = [
        peer.send("hello", protocol=1, client_id=name, secret=secret_of("nobody" if name == "client7" else name))
        for peer, name in zip(peers, NAMES, strict=True)
    ]
    answers = await within(asyncio.gather(*hellos), PATIENCE)
    assert statements_of_clients(server) - before < len(NAMES)

    refused = {name: answer["code"] for name, answer in zip(NAMES, answers, strict=True) if answer["type"] == "error"}
    assert refused == {"client7": "unauthorized"}
    assert all(answer["registered"] for answer in answers if answer["type"] == "welcome")
    assert await value(server.database, open_sessions) == len(NAMES) - 1


async def test_a_client_that_somebody_has_locked_holds_up_nobody_else(server: Server, database: Database) -> None:
    await (await server.volunteer("ada")).close()
    await (await server.volunteer("ben")).close()
    ada, ben = await server.client(), await server.client()

    async with database.transaction() as db:
        await db.execute("SELECT FROM client WHERE client_id = 'ada' FOR UPDATE")
        locked = ada.send("hello", protocol=1, client_id="ada", secret=secret_of("ada"))
        assert (await ben.hello("ben"))["registered"]
        assert not locked.done()
    assert (await within(locked, PATIENCE))["registered"]


async def test_one_that_cannot_be_read_fails_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await register_all(server)
    read = clients.read

    async def read_all_but_one(db: Connection, chosen: Collection[ClientId]) -> dict[ClientId, KnownClient]:
        if "client7" in chosen:
            raise RuntimeError("this one is broken")
        return await read(db, chosen)

    monkeypatch.setattr(clients, "read", read_all_but_one)
    peers = [await server.client() for _ in NAMES]
    hellos = [
        peer.send("hello", protocol=1, client_id=name, secret=secret_of(name))
        for peer, name in zip(peers, NAMES, strict=True)
    ]
    answers = await within(asyncio.gather(*hellos), PATIENCE)
    assert {name for name, answer in zip(NAMES, answers, strict=True) if answer["type"] == "error"} == {"client7"}
