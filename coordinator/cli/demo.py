"""`coordinator demo`: server, daemons and a stand-in for the outside API on this machine, with the sample."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from coordinator import sample
from coordinator.cli.admin_client import AdminClient, admin_connection
from coordinator.cli.demo_view import DemoProgress, render_progress, render_summary
from coordinator.cli.exits import with_exit_codes
from coordinator.cli.item_import import ITEMS_PER_BATCH
from coordinator.client import x_api
from coordinator.config import Settings
from coordinator.errors import CoordinatorError
from coordinator.standin import StandIn
from coordinator.wire.admin.items import ItemAdd
from coordinator.wire.admin.services import ServiceList
from coordinator.wire.admin.system import Stats

_CHECKS_PER_DAEMON = 8
_API_REQUESTS, _API_WINDOW = 180, 3.0
"""The real API's 180 requests, but in 3 s instead of 900 s, so that its limit is met without long waits."""

_STATS_INTERVAL = 1.0
"""Seconds between two looks at the progress."""

_DAEMON_EXIT_GRACE = 10.0
"""Seconds that a daemon has to finish its items in check."""


class DemoFailed(CoordinatorError):
    """Raised when all daemons have ended before the work was done."""


@with_exit_codes
def demo(
    clients: Annotated[int, typer.Option(min=1, max=100, help="Daemons that do the checking.")] = 8,
    exit_: Annotated[
        bool, typer.Option("--exit", help="End with a summary once all is settled; else go on serving.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to keep. Default: a fresh one, removed at the end."),
    ] = None,
) -> None:
    """Show all of it at work: Postgres, server, dashboard and daemons that check the shipped sample.

    The accounts of the sample are checked against a stand-in for the outside API on this machine; nothing
    leaves it.

    Example: `coordinator demo --clients 4 --exit`
    """
    with _data_folder(data) as root:
        finished = asyncio.run(_demo(root, clients, exit_, Console()))

    if not finished:
        raise typer.Exit(130 if exit_ else 0)


async def _demo(root: Path, clients: int, exit_: bool, console: Console) -> bool:
    """Run the demo; returns True once all is settled (with `exit_`), False if a signal ended it first."""
    with _stopped_by_signals():
        try:
            await _run_demo(root, clients, exit_, console)
        except asyncio.CancelledError:
            return False
    return True


async def _run_demo(root: Path, clients: int, exit_: bool, console: Console) -> None:
    """Start all parts, add the sample, and show the progress until all is settled."""
    from coordinator import app  # the server's modules, which no other command needs
    from coordinator.observe import logs

    settings = Settings(
        host="127.0.0.1", port=0, ops_host="127.0.0.1", ops_port=0, database=None, data=root, processes=1,
        registration="open", viewers="open", tls_cert=None, tls_key=None, log_format="console",
        log_level="warning",
    )  # fmt: skip
    logs.configure(settings.log_format, settings.log_level)
    console.print(f"Starting Postgres and the server in {root} …", highlight=False)

    async with (
        StandIn(requests=_API_REQUESTS, window=_API_WINDOW) as standin,
        app.Node(settings) as node,
        admin_connection(f"ws://127.0.0.1:{node.port}", node.admin_token) as admin,
    ):
        services = await checkable_services(admin)
        total = await _add_sample(admin, services)
        progress = DemoProgress(services, total)
        console.print(f"Dashboard: http://127.0.0.1:{node.port}/", highlight=False)

        async with _daemons(clients, services, node.port, standin, root / "demo-clients") as daemons:
            await _show_until_settled(admin, progress, daemons, console, exit_)
            if exit_:
                console.print(render_summary(progress, standin.served))
                return
            console.print("All is settled. Serving on until Ctrl-C.")
            await node.wait_until_stopped()


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


@dataclass(slots=True)
class DaemonProcesses:
    """The daemons of the demo, each a process of its own."""

    logs: list[Path]
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    terminated: bool = False

    @property
    def alive(self) -> int:
        """The number of daemons that run."""
        return sum(process.returncode is None for process in self.processes)

    def check(self) -> None:
        """Raise DemoFailed if no daemon runs any more, with the end of the first one's log."""
        if not self.alive:
            last = self.logs[0].read_text(errors="replace").splitlines()[-5:]
            raise DemoFailed("All daemons have ended; the first one's log ends so:\n" + "\n".join(last))


def daemon_command(number: int, services: list[str], server: str, api: str, data: Path) -> list[str]:
    """Build the command line of one daemon; the stand-in counts the requests of its token."""
    name = f"demo-{number}"
    command = [sys.executable, "-m", "coordinator", "work", "--server", server, "--client-id", name]
    command += ["--data", str(data), "--concurrency", str(_CHECKS_PER_DAEMON), "--log-level", "warning"]

    for option in (f"base_url={api}", f"token={name}", "requests_per_window=0"):
        command += ["--option", option]

    for service in services:
        command += ["--service", service, "--checker", f"{service}=coordinator.client.x_api:{service}"]
        if service == "dm_check":
            command += ["--profile", f"{service}={json.dumps({'source': name})}"]
    return command


@asynccontextmanager
async def _daemons(
    count: int, services: list[str], port: int, standin: StandIn, data: Path
) -> AsyncIterator[DaemonProcesses]:
    daemons = DaemonProcesses(logs=_logs(count, data))
    async with AsyncExitStack() as stack:
        for number, log in enumerate(daemons.logs, start=1):
            command = daemon_command(number, services, f"ws://127.0.0.1:{port}", standin.url, data)
            with log.open("wb") as file:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,  # a Ctrl-C is for the demo, which then stops them
                )

            stack.push_async_callback(_wait_for_exit, process)
            stack.callback(_terminate_all, daemons)
            daemons.processes.append(process)
        yield daemons


def _terminate_all(daemons: DaemonProcesses) -> None:
    """Tell all daemons to end, at once and only once: a second signal would not let them finish."""
    for process in daemons.processes:
        if not daemons.terminated:
            with suppress(ProcessLookupError):
                process.terminate()
    daemons.terminated = True


def _logs(count: int, data: Path) -> list[Path]:
    data.mkdir(parents=True, exist_ok=True)
    return [data / f"demo-{number}.log" for number in range(1, count + 1)]


async def _wait_for_exit(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a daemon that has been told to end."""
    try:
        async with asyncio.timeout(_DAEMON_EXIT_GRACE):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _show_until_settled(
    admin: AdminClient, progress: DemoProgress, daemons: DaemonProcesses, console: Console, exit_: bool
) -> None:
    """Show the progress until all is settled."""
    with Live(console=console, auto_refresh=False, transient=exit_) as live:
        while True:
            progress.take(await admin.request(Stats()), time.monotonic())
            live.update(render_progress(progress, daemons.alive), refresh=console.is_terminal)
            if progress.done:
                return
            daemons.check()
            await asyncio.sleep(_STATS_INTERVAL)


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
