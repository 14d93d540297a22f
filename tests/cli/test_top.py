"""`coordinator top`, through a real server."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any, get_args

import pytest
from rich.console import Console

from coordinator.cli.top import _show
from coordinator.cli.top_view import LatestSnapshots, render_top, sparkline, time_range
from coordinator.store.pool import Database
from coordinator.wire.stats import Eta, Topic
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
    watcher = asyncio.create_task(_show(node.url, [None], 0.25, console, once=False))

    async def until(word: str) -> None:
        async with asyncio.timeout(20):
            while word not in out.getvalue():
                assert not watcher.done(), watcher.exception()
                await asyncio.sleep(0.05)

    await until("6 of 9")
    volunteer = await node.volunteer("bob")
    await volunteer.submit(await volunteer.bucket())
    await until("3 of 9")
    watcher.cancel()
    await asyncio.wait([watcher])


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
    event = {"event_id": 1, "at": "2026-01-01T00:00:00Z", "kind": "admin", "client_id": None, "service": None}
    seen.take(
        {
            "topic": "events",
            "at": "2026-01-01T00:00:00Z",
            "data": {"total": 1, "rows": [{**event, "bucket_id": None, "text": "[red]x\x1b[2J[/red]", "later": 1}]},
        }
    )
    out = io.StringIO()
    Console(file=out, width=120).print(render_top(seen))
    assert "[red]x�[2J[/red]" in out.getvalue()


def test_sparks_and_spans() -> None:
    assert sparkline([0, 0]) == ""
    assert sparkline([0, 4, 8]) == "▁▅█"
    assert time_range(None) == "-"
    assert time_range(Eta(0.0, 0.0)) == "done"
    assert time_range(Eta(30.0, 59.0)) == "30 s to 59 s"
    assert time_range(Eta(600.0, 600.0)) == "10 min"
    assert time_range(Eta(7200.0, 400_000.0)) == "2 h to 5 d"
