"""Volunteers' daemons with something wrong: `python -m tests.bench.daemon_in_trouble [--package FOLDER] [ROW …]`.

A real node, the stand-in for the outside API with one of its switches turned, and two processes of `coordinator work`,
for up to a minute each.  `--package` names the folder above another `coordinator`, whose daemon is measured instead of
this one's; the server and the stand-in are always these.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.embedded import EmbeddedPostgres
from coordinator.observe import logs
from coordinator.standin import StandIn
from coordinator.standin_troubles import ApiFault
from coordinator.store.pool import Database
from tests.databases import Databases
from tests.harness import Admin, Server

HERE = Path(__file__).parent.parent.parent
DAEMONS = 2

SILENT = "import sys, time; [time.sleep(1e9) for line in sys.stdin]"
WRONG = """
import json, sys
for line in sys.stdin: print(json.dumps({"item": json.loads(line)["item"], "dm": "PERHAPS"}), flush=True)
"""
GOOD = WRONG.replace("PERHAPS", "DM")


@dataclass
class Row:
    """One trouble: what is turned at the start and, after `later` seconds, again, and for how long it is watched."""

    name: str
    items: int
    seconds: float
    begin: Callable[[StandIn], None] = lambda api: None
    later: float | None = None
    end: Callable[[StandIn], None] = lambda api: None
    program: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    limit: tuple[int, float] = (0, 1.0)


def turn(**switches: Any) -> Callable[[StandIn], None]:
    """Turn switches of the stand-in."""

    def do(api: StandIn) -> None:
        for name, value in switches.items():
            setattr(api.troubles, name, value)

    return do


def named(numbers: range) -> set[str]:
    return {f"account{n}" for n in numbers}


ROWS = [
    Row("nothing is wrong", 400, 20),
    Row("1 account of 200 is protected", 200, 20, turn(protected=named(range(1)))),
    Row("the last 20 are suspended", 60, 30, turn(suspended=named(range(20)))),
    Row("the API fails over 5 of 60", 60, 40, turn(broken=named(range(5)))),
    Row("403, code 453: the access level", 200, 20, turn(refusing=ApiFault.of(403, 453, "A subset."))),
    Row("25 s of 503", 1000, 60, turn(down=503), 25, turn(down=None)),
    Row("the API's clock 1 h behind ours", 300, 30, turn(clock=-3600.0), limit=(20, 4.0)),
    Row("the API's clock 1 h ahead of ours", 300, 30, turn(clock=3600.0), limit=(20, 4.0)),
    Row("50 requests a day", 200, 20, turn(daily=50)),
    Row("a program that says nothing", 60, 40, program=SILENT),
    Row("results of the wrong shape", 400, 40, program=WRONG, settings={"bucket_size": 20}),
    Row("may hold 2 buckets of 5", 1000, 25, program=GOOD, settings={"bucket_size": 5, "max_held_buckets": 2}),
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one row; `whole` is when everything was settled, `back` the first result after `later`."""

    requests: int
    refused: int
    settled: int
    flagged: int
    alive: int
    lines: int
    whole: float | None
    back: float | None


class Daemons:
    """The processes of `coordinator work`."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.processes: list[asyncio.subprocess.Process] = []
        self._package = package
        self._folder = folder
        self._log = folder / "log"

    async def start(self, server: str, api: str, program: Path | None) -> None:
        """Start them all, each with an identity and a token of its own."""
        environment = {**os.environ, "PYTHONPATH": str(self._package)}
        for number in range(DAEMONS):
            name = f"daemon-{number}"
            words = ["work", "--server", server, "--service", "dm_check", "--client-id", name]
            words += ["--data", str(self._folder), "--profile", f'{{"source": "{name}"}}']
            if program is not None:
                words += ["--exec", f"{sys.executable} {program}"]
            else:
                options = (f"base_url={api}", f"token={name}", "requests_per_window=0")
                words += ["--checker", "coordinator.client.x_api:dm_check"]
                words += [word for option in options for word in ("--option", option)]

            with self._log.open("ab") as log:
                command = (sys.executable, "-m", "coordinator", *words)
                process = await asyncio.create_subprocess_exec(
                    *command, cwd=self._folder, stdout=log, stderr=log, env=environment
                )
            self.processes.append(process)

    async def stop(self) -> None:
        """End them as a volunteer would, and wait for it."""
        for process in self.processes:
            if process.returncode is None:
                process.terminate()
        for process in self.processes:
            await process.wait()

    @property
    def lines(self) -> int:
        """The number of lines that they have written."""
        return self._log.read_bytes().count(b"\n")


@asynccontextmanager
async def node(databases: Databases, folder: Path) -> AsyncIterator[Server]:
    """A node on an empty database."""
    dsn = await databases.shared()
    database = Database(dsn)
    await database.open()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        settings = Settings(port=0, ops_port=0, data=folder, log_level="error")
        yield Server(await stack.enter_async_context(Node(settings, dsn=dsn)), database, stack)


async def measure(row: Row, databases: Databases, package: Path, folder: Path) -> Outcome:
    """Let the daemons work for as long as the row says, or until all is settled."""
    requests, window = row.limit
    program = folder / "program.py"
    program.write_text(row.program or "")

    async with node(databases, folder) as server, StandIn(requests=requests, window=window) as api:
        admin = await server.admin()
        if row.settings:
            await admin.ok("service.configure", service="dm_check", settings=row.settings)
        await admin.add(row.items, services=["dm_check"])
        row.begin(api)

        daemons = Daemons(package, folder)
        began = monotonic()
        await daemons.start(server.url, api.url, program if row.program else None)
        try:
            whole, back = await watch(row, admin, api, began)
            alive = sum(process.returncode is None for process in daemons.processes)
            served, lines = api.served, daemons.lines
            refused = sum(count for status, count in api.answers.items() if status != 200)
        finally:
            await daemons.stop()

        listed = await admin.ok("client.list")
        flagged = sum(client["health"] == "flagged" for client in listed["rows"])
        return Outcome(served, refused, await settled(admin), flagged, alive, lines, whole, back)


async def watch(row: Row, admin: Admin, api: StandIn, began: float) -> tuple[float | None, float | None]:
    """Look at the work twice a second; returns when all was settled, and the first result after `later`, in seconds."""
    turned_back, back = row.later is None, None
    before = 0
    while monotonic() - began < row.seconds:
        await asyncio.sleep(0.5)
        passed, done = monotonic() - began, await settled(admin)
        if not turned_back and row.later is not None and passed >= row.later:
            row.end(api)
            turned_back, before = True, done
        elif turned_back and row.later is not None and back is None and done > before:
            back = passed - row.later
        if done >= row.items:
            return passed, back
    return None, back


async def settled(admin: Admin) -> int:
    """How many items have a result."""
    stats = await admin.ok("stats")
    (found,) = [service for service in stats["services"] if service["service"] == "dm_check"]
    return int(found["settled"])


async def main(package: Path, folder: Path, chosen: list[str]) -> None:
    """Measure the rows, and print them as a table."""
    table = Table("trouble", "requests", "refused", "settled", "flagged", "alive", "lines", "all settled, s", "back, s")
    logs.configure("json", "error")
    postgres = EmbeddedPostgres(folder / "postgres")
    postgres.start()
    try:
        databases = Databases(postgres.dsn)
        await databases.make_template()
        for row in ROWS:
            if chosen and not any(word in row.name for word in chosen):
                continue
            place = Path(tempfile.mkdtemp(dir=folder))
            found = await measure(row, databases, package, place)
            seconds = [f"{value:.1f}" if value is not None else "-" for value in (found.whole, found.back)]
            counts = (found.requests, found.refused, found.settled, found.flagged, found.alive, found.lines)
            table.add_row(row.name, *map(str, counts), *seconds)
            sys.stderr.write(f"{row.name}: {found}\n")
    finally:
        postgres.stop()
    Console(width=140).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=HERE)
    parser.add_argument("rows", nargs="*")
    given = parser.parse_args()
    here = Path(tempfile.mkdtemp(prefix="coordinator-trouble-", dir="/tmp"))
    here.chmod(0o755)
    try:
        asyncio.run(main(given.package, here, given.rows))
    finally:
        shutil.rmtree(here)
