"""`coordinator top`: the statistics, live in the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.live import Live

from coordinator.cli.access import DEFAULT_SERVER, AsJson, DataFolder, Server, stats_tokens
from coordinator.cli.exits import with_exit_codes
from coordinator.cli.output import write_json
from coordinator.cli.stats_client import stats_connection
from coordinator.cli.top_view import LatestSnapshots, render_top
from coordinator.wire.stats import Topic

ALL_TOPICS: tuple[Topic, ...] = get_args(Topic)
TERMINAL_TOPICS: tuple[Topic, ...] = tuple(topic for topic in ALL_TOPICS if topic != "buckets")

WatchToken = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="Token of an admin, operator or viewer, where viewers need one. "
        "Default: COORDINATOR_TOKEN, else the file DATA/admin-token.",
    ),
]


@with_exit_codes
def top(
    server: Server = DEFAULT_SERVER,
    token: WatchToken = None,
    data: DataFolder = None,
    interval: Annotated[float, typer.Option(min=0.25, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch how it goes: throughput, services, clients, nodes, database, events; until Ctrl-C.

    Where the output is no terminal, it is shown once.  With --json each line is one snapshot of one topic.

    Example: `coordinator top --server wss://coordinator.example`
    """
    asyncio.run(_top(server, token, data, interval, once, as_json))


async def _top(server: str, token: str | None, data: Path | None, interval: float, once: bool, as_json: bool) -> None:
    tokens = stats_tokens(token, data)
    if as_json:
        await _lines(server, tokens, interval, once)
        return
    console = Console()
    await _show(server, tokens, interval, console, once or not console.is_terminal)


async def _lines(server: str, tokens: Sequence[str | None], interval: float, once: bool) -> None:
    missing = set(ALL_TOPICS)
    async with stats_connection(server, tokens) as client, aclosing(client.follow(ALL_TOPICS, interval)) as snapshots:
        async for snapshot in snapshots:
            write_json({name: value for name, value in snapshot.items() if name != "type"})
            missing.discard(snapshot["topic"])
            if once and not missing:
                return


async def _show(server: str, tokens: Sequence[str | None], interval: float, console: Console, once: bool) -> None:
    async with (
        stats_connection(server, tokens) as client,
        aclosing(client.follow(TERMINAL_TOPICS, interval)) as snapshots,
    ):
        latest = LatestSnapshots(str(client.welcome["server"]["node"]))
        if once:
            async for snapshot in snapshots:
                latest.take(snapshot)
                if latest.topics >= set(TERMINAL_TOPICS):
                    console.print(render_top(latest))
                    return

        with Live(console=console, auto_refresh=False, screen=True) as live:
            async for snapshot in snapshots:
                latest.take(snapshot)
                if "overview" in latest.topics:
                    live.update(render_top(latest, console.height), refresh=True)
