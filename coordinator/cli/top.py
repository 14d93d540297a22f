"""`coordinator top`: how it goes, live in the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.live import Live

from coordinator.cli.access import DEFAULT_SERVER, AsJson, DataFolder, Server, tokens_to_watch
from coordinator.cli.exits import exits
from coordinator.cli.output import write_json
from coordinator.cli.stats_client import watching
from coordinator.cli.top_view import Seen, picture
from coordinator.wire.stats import Topic

TOPICS: tuple[Topic, ...] = get_args(Topic)
SHOWN: tuple[Topic, ...] = tuple(topic for topic in TOPICS if topic != "buckets")

WatchToken = Annotated[
    str | None,
    typer.Option(
        metavar="TOKEN",
        help="Token of an admin, operator or viewer, where viewers need one. "
        "Default: COORDINATOR_TOKEN, else the file DATA/admin-token.",
    ),
]


@exits
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
    tokens = tokens_to_watch(token, data)
    if as_json:
        await _lines(server, tokens, interval, once)
        return
    console = Console()
    await _show(server, tokens, interval, console, once or not console.is_terminal)


async def _lines(server: str, tokens: Sequence[str | None], interval: float, once: bool) -> None:
    missing = set(TOPICS)
    async with watching(server, tokens) as watch, aclosing(watch.follow(TOPICS, interval)) as snapshots:
        async for one in snapshots:
            write_json({name: value for name, value in one.items() if name != "type"})
            missing.discard(one["topic"])
            if once and not missing:
                return


async def _show(server: str, tokens: Sequence[str | None], interval: float, console: Console, once: bool) -> None:
    async with watching(server, tokens) as watch, aclosing(watch.follow(SHOWN, interval)) as snapshots:
        seen = Seen(str(watch.welcome["server"]["node"]))
        if once:
            async for one in snapshots:
                seen.take(one)
                if seen.topics >= set(SHOWN):
                    console.print(picture(seen))
                    return
        with Live(console=console, auto_refresh=False, screen=True) as live:
            async for one in snapshots:
                seen.take(one)
                if "overview" in seen.topics:
                    live.update(picture(seen, console.height), refresh=True)
