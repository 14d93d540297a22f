"""`coordinator top`, through a real server."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import struct
import sys
import termios
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from rich.console import Console

from coordinator.app import Node
from coordinator.cli.access import ServerAccess
from coordinator.cli.top import TopScreen
from coordinator.cli.top_view import LatestSnapshots, render_top, sparkline, time_range
from coordinator.config import Settings
from coordinator.store.pool import Database
from coordinator.wire.stats import Eta, Topic
from coordinator.wire.stats_events import EventRow
from tests.bounded import within
from tests.cli.conftest import Run
from tests.conftest import StartServer
from tests.harness import Server
from tests.serve.tools import configure, eventually


@pytest.fixture
async def node(start_server: StartServer, database: Database) -> Server:
    """A node where something has been done."""
    await configure(database, bucket_size=3)
    server = await start_server(node_name="here")
    await (await server.admin()).add(9, services=["dm_check"])
    volunteer = await server.volunteer("ada")
    await volunteer.submit(await volunteer.bucket())
    await server.node.parts.statistics.recorder.write()
    return server


async def call(run: Run, *words: str) -> Any:
    """Run the command beside the server."""
    return await asyncio.to_thread(run, "top", *words)


async def test_a_snapshot_a_line(run: Run, node: Server) -> None:
    ended = await call(run, "--server", node.url, "--once", "--json")
    assert ended.exit_code == 0, ended.output
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {line["topic"] for line in lines} == set(get_args(Topic))
    assert all(set(line) == {"topic", "seq", "at", "data"} for line in lines)
    (overview,) = (line["data"] for line in lines if line["topic"] == "overview")
    assert overview["items"]["settled"] == 3


async def test_no_terminal_is_shown_it_once(run: Run, node: Server) -> None:
    ended = await call(run, "--server", node.url)
    assert ended.exit_code == 0, ended.output
    for word in ("6 of 9", "dm_check", "ada", "here", "statements/s", "connected", "settled"):
        assert word in ended.stdout, word


async def test_a_terminal_sees_it_change(node: Server) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, height=50)
    screen = TopScreen(ServerAccess(node.url), [None], 0.25, console)
    watcher = asyncio.create_task(screen.run())

    async def until(word: str) -> None:
        async with asyncio.timeout(20):
            while word not in out.getvalue():
                assert not watcher.done(), watcher.exception()
                await asyncio.sleep(0.05)

    await until("6 of 9")
    volunteer = await node.volunteer("bob")
    await volunteer.submit(await volunteer.bucket())
    await until("3 of 9")
    screen.press("q")
    await within(watcher, 10)


async def test_it_comes_back_by_itself_when_the_server_was_away(dsn: str, database: Database, tmp_path: Any) -> None:
    settings = Settings(port=0, ops_port=0, data=tmp_path, node_name="here")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=160, height=50)

    async def until(word: str) -> None:
        async with asyncio.timeout(30):
            while word not in out.getvalue():
                assert not watcher.done(), watcher.exception()
                await asyncio.sleep(0.05)

    async with Node(settings, dsn=dsn) as node:
        port = node.port
        screen = TopScreen(ServerAccess(f"ws://127.0.0.1:{port}"), [None], 0.25, console)
        watcher = asyncio.create_task(screen.run())
        await until("by here at")
    await until("away since")

    async with Node(Settings(port=port, ops_port=0, data=tmp_path, node_name="again"), dsn=dsn):
        await until("by again at")
    screen.press("q")
    await within(watcher, 10)


def full_picture() -> LatestSnapshots:
    """Snapshots of 6 services, 10 clients and 20 events."""
    items = dict.fromkeys(("waiting", "ready", "claimed", "dead", "settled", "quarantined"), 1000)
    seen = LatestSnapshots("here")
    seen.rows["services"] = [
        SimpleNamespace(
            service=f"service_{n}",
            state="active",
            items=SimpleNamespace(**items, total=6000),
            items_per_second=12.0,
            eta=None,
        )
        for n in range(6)
    ]
    seen.rows["clients"] = [
        SimpleNamespace(
            client_id=f"volunteer-{n}",
            screen_name="A name",
            connected=1,
            health="ok",
            reason=None,
            held=1,
            settled=1_234_567,
            given_back=0,
            dead=0,
        )
        for n in range(10)
    ]
    seen.rows["events"] = [
        SimpleNamespace(at="2026-01-01T12:00:00Z", kind="connect", client_id="ada", service=None, text=f"it came {n}")
        for n in range(20)
    ]
    return seen


def test_sections_that_have_no_room_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = full_picture()
    drawn = [line.plain for line in render_top(seen, 80, 24)]
    assert len(drawn) == 24
    assert max(map(len, drawn)) <= 80
    assert drawn[-1] == "+ 1 section below: events · q quit · j k sections · space stands still"
    assert any(line.startswith("service_5") for line in drawn)
    assert all("1,234,567" in line for line in drawn if line.startswith("volunteer-"))

    further = [line.plain for line in render_top(seen, 80, 24, first=2)]
    assert further[-1].startswith("q quit")
    assert sum("it came" in line for line in further) == 20
    low = [line.plain for line in render_top(seen, 80, 10)]
    assert low[-1].startswith("+ 2 sections below: clients, events")


def test_keys_go_through_the_sections_and_stand_still() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    screen = TopScreen(ServerAccess("ws://127.0.0.1:1"), [None], 1.0, console)
    screen._latest = full_picture()
    for key in "jjjjkx":
        screen.press(key)
    assert screen._first == 1
    screen.press(" ")
    screen._take({"topic": "events", "at": "2026-01-02T00:00:00Z", "data": {"total": 0, "rows": []}})
    assert len(screen._latest.rows["events"]) == 20
    screen.press(" ")
    screen._take({"topic": "events", "at": "2026-01-02T00:00:00Z", "data": {"total": 0, "rows": []}})
    assert screen._latest.rows["events"] == []


async def test_q_ends_it_in_a_real_terminal(node: Server) -> None:
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator", "top", "--server", node.url),
        stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    said = b""
    async with asyncio.timeout(30):
        while b"q quit" not in said:
            said += await asyncio.to_thread(os.read, main, 65_536)
        assert b"6 of 9" in said
        os.write(main, b"q")
        reading = asyncio.create_task(asyncio.to_thread(os.read, main, 65_536))
        assert await child.wait() == 0
        os.close(terminal)
        await asyncio.wait([reading])
    os.close(main)


async def test_tokens(run: Run, start_server: StartServer, tmp_path: Any) -> None:
    server = await start_server(viewers="token")
    refused = await call(run, "--server", server.url, "--once", "--json")
    assert (refused.exit_code, "unauthorized" in refused.stderr) == (1, True)
    viewer = await server.token("viewer")
    assert (await call(run, "--server", server.url, "--once", "--json", "--token", viewer)).exit_code == 0
    wrong = await call(run, "--server", server.url, "--once", "--json", "--token", "no such token")
    assert (wrong.exit_code, "unauthorized" in wrong.stderr) == (1, True)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "admin-token").write_text(await server.token("admin"))
    assert (await call(run, "--server", server.url, "--once", "--json")).exit_code == 0


async def test_a_token_of_another_server_does_not_keep_from_an_open_one(run: Run, node: Server, tmp_path: Any) -> None:
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "admin-token").write_text("of another server")
    assert (await call(run, "--server", node.url, "--once", "--json")).exit_code == 0


def test_who_is_not_there_is_3_and_wrong_usage_2(run: Run) -> None:
    assert run("top", "--server", "ws://127.0.0.1:1", "--once").exit_code == 3
    assert run("top", "--server", "gopher://here").exit_code == 2
    assert run("top", "--interval", "0.1").exit_code == 2


async def test_a_server_that_goes_away_is_3(run: Run, node: Server) -> None:
    watching = asyncio.create_task(call(run, "--server", node.url, "--json"))

    async def watches() -> bool:
        return any(feed._subscriptions for feed in node.node.parts.statistics.feeds.feeds.values())

    await eventually(watches, "it subscribes")
    await node.node.drain()
    ended = await watching
    assert (ended.exit_code, "1012" in ended.stderr) == (3, True), ended.output


def test_names_are_shown_as_text_only() -> None:
    seen = LatestSnapshots("n")
    event = dict.fromkeys(EventRow.__struct_fields__) | {"event_id": 1, "at": "2026-01-01T00:00:00Z", "kind": "admin"}
    event |= {"severity": "info", "text": "[red]x\x1b[2J[/red]", "later": 1}
    seen.take(
        {
            "topic": "events",
            "at": "2026-01-01T00:00:00Z",
            "data": {"total": 1, "rows": [event]},
        }
    )
    out = io.StringIO()
    console = Console(file=out, width=120)
    for line in render_top(seen, 120):
        console.print(line)
    assert "[red]x�[2J[/red]" in out.getvalue()


def test_sparks_and_spans() -> None:
    assert sparkline([0, 0]) == ""
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert time_range(None) == "\N{EN DASH}"
    assert time_range(Eta(0.0, 0.0)) == "done"
    assert time_range(Eta(30.0, 59.0)) == "30 s to 59 s"
    assert time_range(Eta(600.0, 600.0)) == "10 min"
    assert time_range(Eta(7200.0, 400_000.0)) == "2 h to 5 d"
