"""`coordinator demo`: server, daemons and a stand-in for the outside API on this machine, with the sample."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from coordinator import sample
from coordinator.cli.admin_client import AdminClient, admin_connection
from coordinator.cli.demo_view import DemoProgress, render_progress, render_summary
from coordinator.cli.demo_volunteers import CHECKS_PER_DAEMON, Daemons, Story, Workplace, daemons_at
from coordinator.cli.exits import only_where_the_server_runs
from coordinator.cli.item_import import ITEMS_PER_BATCH
from coordinator.cli.serve import with_settings
from coordinator.client import x_api
from coordinator.config import Settings
from coordinator.standin import StandIn
from coordinator.wire.admin.items import ItemAdd
from coordinator.wire.admin.services import ServiceConfigure, ServiceList
from coordinator.wire.admin.system import Stats
from coordinator.wire.admin.tokens import TokenIssue

_API_REQUESTS, _API_WINDOW = 180, 3.0
"""The real API's 180 requests, but in 3 s instead of 900 s, so that its limit is met without long waits."""

_STORY_SECONDS = 50.0
"""Seconds that the checks take at pace 1."""

_STORY_BUCKET_SIZE = 50
"""Items of a bucket there, so that each of the daemons has some buckets of each service."""

_STATS_INTERVAL = 1.0
"""Seconds between two looks at the progress."""

_OWN_DEFAULTS: dict[str, Any] = {"port": 0, "ops_port": 0, "log_level": "warning", "log_format": "console"}
"""Settings with another default than for `serve`."""

_FIXED: dict[str, Any] = {
    "database": None,
    "processes": 1,
    "tls_cert": None,
    "tls_key": None,
    "data": Path(tempfile.gettempdir()),
}
"""Settings that the demo does not take: it has a Postgres of its own, and speaks to itself.

The folder is replaced once it is made; nobody's usual one is looked for, since an account may have none.
"""


def _demo(
    settings: Settings,
    clients: Annotated[int, typer.Option(min=1, max=100, help="Daemons that do the checking.")] = 8,
    exit_: Annotated[
        bool, typer.Option("--exit", help="End with a summary once all is settled; else go on serving.")
    ] = False,
    pace: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=100,
            help="How many times as fast: 1 takes about a minute. Default: 1; with --exit, as fast as it can.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to keep. Default: a fresh one, removed at the end."),
    ] = None,
) -> None:
    """Show all of it at work: Postgres, server, dashboard and daemons that check the shipped sample.

    The accounts of the sample are checked against a stand-in for the outside API on this machine; nothing
    leaves it. In about a minute daemons come and go, one crashes, and one that cheats is caught. Settings are as for
    `coordinator serve`, by flag, environment or file; it uses neither a database nor a data folder of yours.

    Example: `coordinator demo --clients 4 --exit`
    """
    with only_where_the_server_runs():
        from coordinator import app  # noqa: F401 - it is looked for before anything else is begun

    with _data_folder(data) as root:
        own = {name: value for name, value in _OWN_DEFAULTS.items() if name not in settings.model_fields_set}
        settings = settings.model_copy(update={**own, "data": root})
        if pace is None and not exit_:
            pace = 1.0
        finished = asyncio.run(_until_signal(settings, clients, pace, exit_))

    if not finished:
        raise typer.Exit(130 if exit_ else 0)


demo = with_settings(_demo, fixed=_FIXED, defaults={**_OWN_DEFAULTS, "port": "a free one", "ops_port": "a free one"})


async def _until_signal(settings: Settings, clients: int, pace: float | None, exit_: bool) -> bool:
    """Run the demo; returns True once all is settled (with `exit_`), False if a signal ended it first."""
    with _stopped_by_signals():
        try:
            await _run_demo(settings, clients, pace, exit_, Console())
        except asyncio.CancelledError:
            return False
    return True


async def _run_demo(settings: Settings, clients: int, pace: float | None, exit_: bool, console: Console) -> None:
    """Start all parts, add the sample, and show the progress until all is settled."""
    from coordinator import app  # the server's modules, which no other command needs
    from coordinator.address_file import url_here
    from coordinator.observe import logs

    logs.configure(settings.log_format, settings.log_level)
    logging.getLogger("coordinator.client").setLevel(logging.ERROR)  # of the one that cheats, which is told anyway
    console.print(f"Starting Postgres and the server in {settings.data} …", highlight=False)

    async with StandIn(requests=_API_REQUESTS, window=_API_WINDOW) as standin, app.Node(settings) as node:
        server = url_here(settings, node.port)
        async with admin_connection(server, node.admin_token) as admin:
            services = await checkable_services(admin)
            if pace is not None:
                standin.latency = _latency(pace, clients, len(services))
                await _make_small_buckets(admin, services)
            total = await _add_sample(admin, services)
            console.print(f"Dashboard: http{server.removeprefix('ws')}/", highlight=False)

            place = Workplace(
                services, server, standin.url, settings.data / "demo-clients", await _token(admin, settings)
            )
            async with daemons_at(place) as daemons:
                show = Show(admin, DemoProgress(services, total), daemons, console)
                await show.until_settled(clients, place if pace is not None else None, transient=exit_)
                if exit_:
                    console.print(render_summary(show.progress, standin.served))
                    return
                console.print("All is settled. Serving on until Ctrl-C.")
                await node.wait_until_stopped()


def _latency(pace: float, clients: int, services: int) -> float:
    """Return the seconds that an answer of the API takes, so that all checks take as long as the pace wants."""
    checks = services * sum(1 for _ in sample.accounts())
    return _STORY_SECONDS / pace * clients * CHECKS_PER_DAEMON / max(1, checks)


async def _make_small_buckets(admin: AdminClient, services: list[str]) -> None:
    for service in services:
        await admin.request(ServiceConfigure(service=service, settings={"bucket_size": _STORY_BUCKET_SIZE}))


async def _token(admin: AdminClient, settings: Settings) -> str | None:
    """Return what the daemons register with; None if everyone may."""
    if settings.registration == "open":
        return None
    return str((await admin.request(TokenIssue(role="enrolment", label="demo")))["token"])


async def checkable_services(admin: AdminClient) -> list[str]:
    """List the active services that this package ships a checker for."""
    return [
        str(row["service"])
        async for rows in admin.pages(ServiceList())
        for row in rows
        if row["state"] == "active" and callable(getattr(x_api, f"{row['service']}", None))
    ]


async def _add_sample(admin: AdminClient, services: list[str]) -> int:
    items: list[dict[str, Any]] = [
        {"key": account.screen_name} | ({} if account.account_id is None else {"account_id": account.account_id})
        for account in sample.accounts()
    ]
    for start in range(0, len(items), ITEMS_PER_BATCH):
        await admin.request(ItemAdd(items=items[start : start + ITEMS_PER_BATCH], services=services))
    return len(items)


class Show:
    """The progress of the work in a terminal, and, above it, what happens."""

    def __init__(self, admin: AdminClient, progress: DemoProgress, daemons: Daemons, console: Console) -> None:
        self.progress = progress
        self._admin = admin
        self._daemons = daemons
        self._console = console

    async def until_settled(self, clients: int, place: Workplace | None, *, transient: bool) -> None:
        """Show it until all is settled; with a place as a story, else with all daemons from the beginning on."""
        story = None if place is None else Story(self._daemons, clients, place, self._admin, self._tell)
        if story is None:
            for number in range(1, clients + 1):
                await self._daemons.start(number)
        try:
            with Live(console=self._console, auto_refresh=False, transient=transient) as live:
                await self._follow(story, live)
        finally:
            if story is not None:
                await story.end()

    async def _follow(self, story: Story | None, live: Live) -> None:
        progress = self.progress
        while True:
            progress.take(await self._admin.request(Stats()), time.monotonic())
            live.update(render_progress(progress, self._daemons.alive), refresh=self._console.is_terminal)
            if progress.done:
                return
            if story is not None:
                await story.go_on(progress.share)
            self._daemons.check()
            await asyncio.sleep(_STATS_INTERVAL)

    def _tell(self, sentence: str) -> None:
        self._console.print(f"{self.progress.seconds:3.0f} s  {sentence}", highlight=False, markup=False)


@contextmanager
def _data_folder(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="coordinator-demo-", ignore_cleanup_errors=True) as made:
        # The account that Postgres runs as, if we are root, has to pass through.
        Path(made).chmod(0o711)
        yield Path(made, "data")


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Cancel this task on SIGINT and SIGTERM, so that it cleans up; a second signal kills."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        restore()
        task.cancel()

    def restore() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        restore()
