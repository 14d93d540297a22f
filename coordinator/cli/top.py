"""`coordinator top`: the statistics, live in the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, get_args

import typer
from rich.console import Console, Group
from rich.live import Live

from coordinator.cli.access import AsJson, Authority, DataFolder, Server, ServerAccess, find_server, stats_tokens
from coordinator.cli.exits import with_exit_codes
from coordinator.cli.keyboard import keys
from coordinator.cli.output import terminal_width, write_json
from coordinator.cli.stats_client import StatsFrame, stats_connection
from coordinator.cli.top_view import LatestSnapshots, render_top, sections_of
from coordinator.client.backoff import Backoff
from coordinator.errors import ServerUnreachable
from coordinator.printable import printable
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
    server: Server = None,
    ca: Authority = None,
    token: WatchToken = None,
    data: DataFolder = None,
    interval: Annotated[float, typer.Option(min=0.25, max=60, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch how it goes: throughput, services, clients, nodes, database, events; until q or Ctrl-C.

    Keys: j and k, or the arrows, go through the sections where there is not room for all; space stands still; q ends.
    It comes back by itself when the server was away.  Where the output is no terminal, it is shown once.  With --json
    each line is one snapshot of one topic.

    Example: `coordinator top --server wss://coordinator.example`
    """
    asyncio.run(_top(find_server(server, data, ca), stats_tokens(token, data), interval, once, as_json))


async def _top(server: ServerAccess, tokens: Sequence[str | None], interval: float, once: bool, as_json: bool) -> None:
    if as_json:
        await _lines(server, tokens, interval, once)
        return
    console = Console()
    if once or not console.is_terminal:
        await _show_once(server, tokens, interval, console)
    else:
        await TopScreen(server, tokens, interval, console).run()


async def _lines(server: ServerAccess, tokens: Sequence[str | None], interval: float, once: bool) -> None:
    missing = set(ALL_TOPICS)
    async with (
        stats_connection(server.address, tokens, server.authority) as client,
        aclosing(client.follow(ALL_TOPICS, interval)) as snapshots,
    ):
        async for snapshot in snapshots:
            write_json({name: value for name, value in snapshot.items() if name != "type"})
            missing.discard(snapshot["topic"])
            if once and not missing:
                return


async def _show_once(server: ServerAccess, tokens: Sequence[str | None], interval: float, console: Console) -> None:
    async with (
        stats_connection(server.address, tokens, server.authority) as client,
        aclosing(client.follow(TERMINAL_TOPICS, interval)) as snapshots,
    ):
        latest = LatestSnapshots(str(client.welcome["server"]["node"]))
        async for snapshot in snapshots:
            latest.take(snapshot)
            if latest.topics >= set(TERMINAL_TOPICS):
                for line in render_top(latest, terminal_width()):
                    console.print(line, soft_wrap=True)
                return


class TopScreen:
    """The picture in a terminal, until q is pressed; it stays, and says so, while the server is away."""

    def __init__(self, server: ServerAccess, tokens: Sequence[str | None], interval: float, console: Console) -> None:
        self._server = server
        self._tokens = tokens
        self._interval = interval
        self._console = console
        self._latest = LatestSnapshots("")
        self._first = 0
        self._still = False
        self._quit = asyncio.Event()
        self._live = Live(console=console, auto_refresh=False, screen=True)

    async def run(self) -> None:
        """Show it until q is pressed.

        Raises:
            ServerUnreachable: the server was not reached, not even once.
            Refused: it wants another token.
        """
        following = asyncio.create_task(self._follow(), name="top")
        quitting = asyncio.create_task(self._quit.wait(), name="quit")
        try:
            with keys(self.press):
                await asyncio.wait([following, quitting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (following, quitting):
                task.cancel()
            await asyncio.wait([following, quitting])
            self._live.stop()
        if not following.cancelled():
            following.result()

    def press(self, key: str) -> None:
        """Do what a key says; another one does nothing."""
        last = max(0, len(sections_of(self._latest, self._console.width)) - 1)
        match key:
            case "q":
                self._quit.set()
            case "j":
                self._first = min(last, self._first + 1)
            case "k":
                self._first = max(0, self._first - 1)
            case " ":
                self._still = not self._still
        self._draw()

    async def _follow(self) -> None:
        """Follow the server, and again whenever it has been away."""
        backoff = Backoff(0.5, 5.0)
        while True:
            try:
                async with aclosing(self._snapshots()) as snapshots:
                    async for snapshot in snapshots:
                        backoff.reset()
                        self._take(snapshot)
            except ServerUnreachable as away:
                if not self._latest.topics:
                    raise
                if not self._latest.away:
                    self._latest.away = printable(f"away since {datetime.now():%H:%M:%S}: {away}")
                self._draw()
            await asyncio.sleep(backoff.next())

    def _take(self, snapshot: StatsFrame) -> None:
        if self._still:
            return
        self._latest.away = ""
        self._latest.take(snapshot)
        self._draw()

    async def _snapshots(self) -> AsyncGenerator[StatsFrame, None]:
        async with (
            stats_connection(self._server.address, self._tokens, self._server.authority) as client,
            aclosing(client.follow(TERMINAL_TOPICS, self._interval)) as snapshots,
        ):
            self._latest.node = str(client.welcome["server"]["node"])
            async for snapshot in snapshots:
                yield snapshot

    def _draw(self) -> None:
        if self._latest.overview is None:
            return
        self._live.start()
        state = "stands still · " if self._still else ""
        lines = render_top(self._latest, self._console.width, self._console.height, self._first, state)
        self._live.update(Group(*lines), refresh=True)
