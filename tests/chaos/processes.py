"""The nodes and the clients of a run: real processes, which are started again when they have ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from time import monotonic

from tests.bounded import within
from tests.chaos.cluster import Cluster
from tests.chaos.proxy import Proxy, Target

GRACE = 3.0
"""Seconds that a node which drains waits for submits."""

ENDS_WITHIN = GRACE + 12.0
"""Seconds after SIGTERM within which a node has ended, whatever the database does."""

LEASE = 5.0

FLAGS = (
    "--port=0", "--ops-port=0", f"--node-lease={LEASE}", "--ping-interval=5", "--ping-timeout=5",
    f"--drain-grace={GRACE}", "--reconnect-window=6", "--recollect-window=6", "--log-format=json",
    "--registrations-per-minute=60000",  # all clients come from one address
)  # fmt: skip

READY_WITHIN = 60.0


class ChaosProcess:
    """A process that is started again whenever it has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: asyncio.subprocess.Process | None = None
        self.up = asyncio.Event()
        """Set while it runs and is ready."""

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop it; it goes on at the end."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    async def end(self) -> None:
        """Kill it."""
        self.send(signal.SIGKILL)
        if self.process is not None:
            await self.process.wait()


class NodeProcess(ChaosProcess):
    """One node, which reaches each database server through a proxy of its own."""

    def __init__(
        self, name: str, folder: Path, cluster: Cluster, mutation: str | None, flags: Sequence[str] = ()
    ) -> None:
        super().__init__(name)
        self._folder = folder
        self._cluster = cluster
        self._mutation = mutation
        self._flags = flags
        self._starts = 0
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.port: int | None = None
        self.database: list[Proxy] = []
        self.hung: list[str] = []
        """A sentence for each time that it had to be killed, since it did not end."""

    async def run(self) -> None:
        """Keep it running until cancelled."""
        async with AsyncExitStack() as stack:
            for server in self._cluster.servers:
                self.database.append(await stack.enter_async_context(Proxy(_socket_of(server.socket))))
            hosts = ",".join(f"127.0.0.1:{proxy.port}" for proxy in self.database)
            dsn = f"postgresql://postgres@{hosts}/coordinator?target_session_attrs=read-write&sslmode=disable"

            while True:
                await self._wanted.wait()
                await self._run_once(dsn)
                await asyncio.sleep(0.2)

    def keep_down(self) -> None:
        """Do not start it again once it has ended, until `start_again`."""
        self._wanted.clear()

    def start_again(self) -> None:
        """Keep it running again."""
        self._wanted.set()

    async def _run_once(self, dsn: str) -> None:
        self._starts += 1
        log = self._folder / f"{self.name}.{self._starts}.log"
        mutation = () if self._mutation is None else (f"--mutation={self._mutation}",)
        words = ["-m", "tests.chaos.node", *mutation, "serve", f"--database={dsn}", f"--node-name={self.name}", *FLAGS]
        words += self._flags

        with log.open("wb") as file:
            self.process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=file, stderr=file)
        try:
            begun = monotonic()
            while self.process.returncode is None and self.port is None and monotonic() < begun + READY_WITHIN:
                await asyncio.sleep(0.05)
                self.port = _port(log)
            if self.port is not None:
                self.up.set()
            await self.process.wait()
        finally:
            self.port = None
            self.up.clear()
            if self.process.returncode is None:
                self.process.kill()

    async def drain(self) -> None:
        """Let it drain and end; one that does not is killed, and that is noted."""
        process = self.process
        self.send(signal.SIGTERM)
        if process is None:
            return
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await process.wait()
        except TimeoutError:
            self.hung.append(f"{self.name} did not end within {ENDS_WITHIN:g} s of SIGTERM")
            process.kill()
        self.up.clear()  # at once, for who waits until it is up again

    async def kill(self) -> None:
        """Kill it; returns when it is gone."""
        await self.end()
        self.up.clear()  # at once, as above

    def errors(self) -> list[str]:
        """Lines of its logs that tell of a fault of the program: those with a traceback."""
        found = []
        for log in sorted(self._folder.glob(f"{self.name}.*.log")):
            lines = log.read_text(errors="replace").splitlines()
            found += [f"{log.name}: {line[-600:]}" for line in lines if "Traceback" in line or '"exception"' in line]
        return found


class VolunteerProcess(ChaosProcess):
    """Some clients in one process, which reach each node through a proxy of their own."""

    def __init__(
        self, name: str, folder: Path, clients: Sequence[str], seed: int, *, careful: bool, think: float
    ) -> None:
        super().__init__(name)
        self._folder = folder
        self.clients = clients
        self._seed = seed
        self.careful = careful
        self._think = think
        self._starts = 0
        self._calm = False
        self.nodes: list[Proxy] = []

    async def run(self, nodes: Sequence[NodeProcess]) -> None:
        """Keep it running until cancelled."""
        async with AsyncExitStack() as stack:
            for node in nodes:
                self.nodes.append(await stack.enter_async_context(Proxy(_port_of(node))))
            while True:
                await self._run_once()
                await asyncio.sleep(0.3)

    async def _run_once(self) -> None:
        self._starts += 1
        urls = [f"ws://127.0.0.1:{proxy.port}" for proxy in self.nodes]
        words = ["-m", "tests.chaos.volunteers", "--name", *self.clients, "--url", *urls]
        words += ["--history", str(self._folder / f"{self.name}.history"), "--run", f"{self.name}.{self._starts}"]
        words += [
            f"--seed={self._seed + self._starts}",
            f"--think={self._think}",
            *(["--careful"] if self.careful else []),
        ]

        with (self._folder / f"{self.name}.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=log, stderr=log)
        self.up.set()
        try:
            if self._calm:
                await asyncio.sleep(1.0)  # it has to know the signal first
                self.send(signal.SIGUSR1)
            await self.process.wait()
        finally:
            self.up.clear()
            if self.process.returncode is None:
                self.process.kill()

    def calm_down(self) -> None:
        """Let its clients play no more tricks."""
        self._calm = True
        self.send(signal.SIGUSR1)


@asynccontextmanager
async def kept_running(nodes: Sequence[NodeProcess], crowd: Sequence[VolunteerProcess]) -> AsyncIterator[None]:
    """Run nodes and clients; all are killed at the end."""
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        for node in nodes:
            await within(node.up.wait(), READY_WITHIN)
        tasks += [asyncio.create_task(group.run(nodes)) for group in crowd]
        yield
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for process in (*nodes, *crowd):
            await process.end()


def _socket_of(path: Path) -> Callable[[], Target | None]:
    return lambda: path if path.exists() else None


def _port_of(node: NodeProcess) -> Callable[[], Target | None]:
    return lambda: node.port


def _port(log: Path) -> int | None:
    for line in log.read_text(errors="replace").splitlines():
        if '"serving"' in line:
            return int(json.loads(line)["port"])
    return None


def end_stopped(process: ChaosProcess) -> None:
    """Let a process go on that a fault has left standing still."""
    if process.process is not None and process.process.returncode is None:
        os.kill(process.process.pid, signal.SIGCONT)
