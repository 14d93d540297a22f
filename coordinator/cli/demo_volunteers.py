"""The volunteers of the demo: daemons, each a process of its own, that come and go, and one that cheats."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from coordinator.cli.admin_client import AdminClient
from coordinator.client import Client
from coordinator.errors import CoordinatorError, Refused
from coordinator.wire.admin.clients import ClientShow
from coordinator.wire.admin.results import ResultInvalidate
from coordinator.wording import counted

CHECKS_PER_DAEMON = 8

HASTY = "demo-hasty"
"""The client that answers without having looked."""

HASTY_SERVICE = "dm_check"

_HASTY_PAUSE = 2.0
"""Seconds between two of its buckets, so that it is caught before it has answered for all accounts."""

LEAST_TO_CATCH = 6
"""Daemons beside which it is caught: the pace of five others must be known, and one may be away."""

_DAEMON_EXIT_GRACE = 10.0
"""Seconds that a daemon has to finish its items in check."""


class DemoFailed(CoordinatorError):
    """Raised when all daemons have ended before the work was done."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """The place where the daemons work: addresses of the server and of the stand-in, and the folder of their files."""

    services: list[str]
    server: str
    api: str
    folder: Path
    enrolment_token: str | None = None


def daemon_command(number: int, place: Workplace) -> list[str]:
    """Build the command line of one daemon; the stand-in counts the requests of its token."""
    name = f"demo-{number}"
    command = [sys.executable, "-m", "coordinator", "work", "--server", place.server, "--client-id", name]
    command += ["--data", str(place.folder), "--concurrency", str(CHECKS_PER_DAEMON), "--log-level", "warning"]

    for option in (f"base_url={place.api}", f"token={name}", "requests_per_window=0"):
        command += ["--option", option]

    for service in place.services:
        command += ["--service", service, "--checker", f"{service}=coordinator.client.x_api:{service}"]
        if service == "dm_check":
            command += ["--profile", f"{service}={json.dumps({'source': name})}"]
    return command


class Daemons:
    """The daemons by their numbers, from 1 on."""

    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._ended: list[asyncio.subprocess.Process] = []

    @property
    def alive(self) -> int:
        """The number of daemons that run."""
        return sum(process.returncode is None for process in self._processes.values())

    async def start(self, number: int) -> None:
        """Start a daemon, or start it again with the identity and the files that it had."""
        self._place.folder.mkdir(parents=True, exist_ok=True)
        if (former := self._processes.get(number)) is not None:
            self._ended.append(former)
        token = self._place.enrolment_token
        environment = {} if token is None else {"COORDINATOR_ENROLMENT_TOKEN": token}
        with self._log(number).open("ab") as file:
            self._processes[number] = await asyncio.create_subprocess_exec(
                *daemon_command(number, self._place),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, **environment},
                start_new_session=True,  # a Ctrl-C is for the demo, which then stops them
            )

    def end(self, number: int, how: signal.Signals) -> None:
        """Send a daemon a signal: SIGTERM lets it give back what it holds."""
        with suppress(ProcessLookupError):
            self._processes[number].send_signal(how)

    def check(self) -> None:
        """Raise DemoFailed if no daemon runs any more, with the end of the first one's log."""
        if not self.alive:
            last = self._log(1).read_text(errors="replace").splitlines()[-5:]
            raise DemoFailed("All daemons have ended; the first one's log ends so:\n" + "\n".join(last))

    async def stop(self) -> None:
        """Let all end, and wait for them."""
        for number, process in self._processes.items():
            if process.returncode is None:
                self.end(number, signal.SIGTERM)
        for process in (*self._ended, *self._processes.values()):
            await _wait_for_exit(process)

    def _log(self, number: int) -> Path:
        return self._place.folder / f"demo-{number}.log"


async def _wait_for_exit(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a daemon that has been told to end."""
    try:
        async with asyncio.timeout(_DAEMON_EXIT_GRACE):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def daemons_at(place: Workplace) -> AsyncIterator[Daemons]:
    """Yield the daemons, of which none is started yet, and stop all in the end."""
    daemons = Daemons(place)
    try:
        yield daemons
    finally:
        await daemons.stop()


class Story:
    """The events of a demo at its usual pace: daemons come one by one, one leaves, one crashes, one cheats.

    `tell` gets a sentence for each event.
    """

    def __init__(
        self, daemons: Daemons, count: int, place: Workplace, admin: AdminClient, tell: Callable[[str], None]
    ) -> None:
        self._daemons = daemons
        self._count = count
        self._place = place
        self._admin = admin
        self._tell = tell
        self._begun = 0
        self._left = self._came_back = self._crashed = self._restarted = False
        self._hasty: asyncio.Task[None] | None = None
        self._caught = False

    async def go_on(self, done: float) -> None:
        """Do what is due once this share of the work, from 0 to 1, is done."""
        while self._begun < self._count:
            self._begun += 1
            await self._daemons.start(self._begun)
            if self._begun > self._count // 2:
                break  # the others come one by one
        if self._count > 1:
            await self._come_and_go(done)
        if self._count >= LEAST_TO_CATCH and HASTY_SERVICE in self._place.services:
            await self._cheat(done)

    async def _come_and_go(self, done: float) -> None:
        first, last = 1, self._count
        if done >= 0.25 and not self._left:
            self._left = True
            self._daemons.end(first, signal.SIGTERM)
            self._tell(f"demo-{first} leaves: it sends what it has, and gives back the rest.")
        elif done >= 0.35 and not self._came_back:
            self._came_back = True
            await self._daemons.start(first)
            self._tell(f"demo-{first} is back.")

        if done >= 0.5 and not self._crashed:
            self._crashed = True
            self._daemons.end(last, signal.SIGKILL)
            self._tell(f"demo-{last} crashes: what it held is free for the others at once.")
        elif done >= 0.6 and not self._restarted:
            self._restarted = True
            await self._daemons.start(last)
            self._tell(f"demo-{last} is back, and sends the results that it had on disk.")

    async def _cheat(self, done: float) -> None:
        if done >= 0.45 and self._hasty is None:
            self._hasty = asyncio.create_task(_be_hasty(self._place), name=HASTY)
            self._tell(f"{HASTY} joins: it says DM of every account, without having looked.")
        if self._hasty is None or self._caught:
            return

        try:
            shown = await self._admin.request(ClientShow(client_id=HASTY))
        except Refused:  # it is about to register
            return
        if shown["health"] != "flagged":
            return
        self._caught = True
        await self.end()
        taken = await self._admin.request(ResultInvalidate(dry_run=False, requeue=True, client_id=HASTY))
        self._tell(
            f"{HASTY} is caught: {shown['reason']}. "
            f"Its {counted(taken['count'], 'result')} are taken back, and checked by others."
        )

    async def end(self) -> None:
        """End the one that cheats, if it is there."""
        if self._hasty is not None:
            self._hasty.cancel()
            await asyncio.wait([self._hasty])


async def _be_hasty(place: Workplace) -> None:
    """Answer for whole buckets at once, until cancelled."""
    rests = False
    async with Client(place.server, client_id=HASTY, data=place.folder) as client:
        await client.register(HASTY, place.enrolment_token, {HASTY_SERVICE: {"source": HASTY}})

        # The time for which it has a bucket counts as work, so it has none while it rests.
        stream = client.bucket_stream(HASTY_SERVICE, lambda: 0 if rests else 1 - stream.arrived)
        async for bucket in stream:
            rests = True
            for item in bucket.items:
                await bucket.settle(item["item"], dm="DM")

            await asyncio.sleep(_HASTY_PAUSE)
            rests = False
            stream.nudge()
