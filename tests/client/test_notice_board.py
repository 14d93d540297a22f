"""The library logs each message of the operator once, harmless for terminals, and keeps those in force."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from coordinator.client import Client
from coordinator.client.notice_board import MOST_NOTICES, NoticeBoard
from coordinator.wire.notices import NoticeInForce
from tests.client.scripted import ScriptedServer

AT = "2026-01-31T11:00:00Z"


def notice(number: int, **fields: str) -> NoticeInForce:
    return NoticeInForce(notice_id=str(number), at=AT, level="info", text=f"text {number}", **fields)


async def test_each_is_logged_once_at_its_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = {"notice_id": "1", "at": AT, "level": "info", "text": "calm"}
    second = {"notice_id": "2", "at": AT, "level": "error", "text": "one\ntwo\x1b[2J", "service": "dm_check"}

    async with ScriptedServer() as server, Client(server.url, client_id="ada", data=tmp_path) as client:
        peer = await server.peer()
        await peer.welcome(notices=[first])
        await client.welcome()
        await peer.say("notice", **second)
        services = asyncio.create_task(client.services())
        await peer.answer(await peer.read("services"), "services", services=[])
        await services
        assert [notice.notice_id for notice in client.notices] == ["1", "2"]

        await peer.cut()
        again = await server.peer()
        await again.welcome(notices=[second])
        services = asyncio.create_task(client.services())
        await again.answer(await again.read("services"), "services", services=[])
        await services
        assert [notice.notice_id for notice in client.notices] == ["2"]

    said = [(record.levelname, record.getMessage()) for record in caplog.records if "operator" in record.getMessage()]
    assert said == [
        ("INFO", "the operator says: calm"),
        ("ERROR", "the operator of dm_check says: one"),
        ("ERROR", "the operator of dm_check says: two\x1b[2J"),  # the formatter escapes it
    ]


async def test_all_that_is_kept_of_a_client_is_gone_through(tmp_path: Path) -> None:
    async with ScriptedServer() as server, Client(server.url, client_id="ada", data=tmp_path) as client:
        rows = asyncio.create_task(_kinds(client))
        peer = await server.peer()
        await peer.welcome()
        first = await peer.read("me.export")
        await peer.answer(first, "exported", rows=[{"kind": "client", "data": {}}], next="ada|0")
        second = await peer.read("me.export")
        assert second["after"] == "ada|0"
        await peer.answer(second, "exported", rows=[{"kind": "claim", "data": {"claim": 1}}], next=None)
        assert await rows == ["client", "claim"]
        peer.done.set()


async def _kinds(client: Client) -> list[str]:
    return [row.kind async for row in client.export()]


def test_what_was_withdrawn_or_is_over_is_not_in_force() -> None:
    board = NoticeBoard()
    board.replace([notice(1), notice(2), notice(3, until="2020-01-01T00:00:00Z"), notice(4, until="soon")])
    assert [one.notice_id for one in board.in_force()] == ["1", "2", "4"]
    board.replace([notice(2)])
    assert [one.notice_id for one in board.in_force()] == ["2"]


def test_a_bounded_number_is_kept() -> None:
    board = NoticeBoard()
    for number in range(MOST_NOTICES + 5):
        board.add(notice(number))
    assert len(board.in_force()) == MOST_NOTICES
    assert board.in_force()[-1].notice_id == str(MOST_NOTICES + 4)
