"""Faults: each breaks one thing for a while, and mends it.  What comes when is drawn from the seed of the run."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import asyncpg

from tests.bounded import within
from tests.chaos.cluster import Cluster
from tests.chaos.history import Fault, Recorder
from tests.chaos.processes import NodeProcess, VolunteerProcess
from tests.chaos.proxy import Proxy

EVERY = 1.5
"""Seconds from one fault to the next, on average."""

CALM = 2.0
"""Seconds after a fault of the database server before the next one, so that there is work between."""

_OTHERS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = 'coordinator' AND application_name <> 'chaos' AND backend_type = 'client backend'"""

_TERMINATE = f"SELECT count(pg_terminate_backend(pid)) FROM ({_OTHERS}) AS others"


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """A fault to come: seconds after the beginning, its kind, and its share of the time that such a one may last."""

    after: float
    kind: str
    length: float


def plan(seed: int, seconds: float, kinds: Sequence[str], every: float = EVERY) -> list[PlannedFault]:
    """Draw the faults of a run from its seed; one seed always gives the same, and each kind has its turn."""
    chance = random.Random(seed)
    planned, after, turn = [], chance.expovariate(1 / every), list[str]()
    while after < seconds:
        if not turn:
            turn = chance.sample(list(kinds), len(kinds))
        planned.append(PlannedFault(after, turn.pop(), chance.uniform(0.3, 1.0)))
        after += chance.expovariate(1 / every)
    return planned


class Faults:
    """Breaks the parts of one run."""

    def __init__(
        self,
        cluster: Cluster,
        nodes: Sequence[NodeProcess],
        crowd: Sequence[VolunteerProcess],
        recorder: Recorder,
        chance: random.Random,
    ) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._crowd = [group for group in crowd if not group.careful]
        self._recorder = recorder
        self._chance = chance
        self._server = asyncio.Lock()
        """Held by whoever stops, kills or replaces a server, and for a while after."""

    async def carry_out(self, planned: Sequence[PlannedFault]) -> None:
        """Carry out faults at their times, whatever else is under way; returns when all is mended."""
        begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in planned:
                await asyncio.sleep(max(0.0, begun + fault.after - asyncio.get_running_loop().time()))
                group.create_task(self._carry_out(fault))

    async def _carry_out(self, fault: PlannedFault) -> None:
        at, step = Recorder.now(), KINDS[fault.kind]
        if fault.kind not in OF_THE_SERVER:
            target = await step(self, fault.length)
        elif self._server.locked():
            return  # two at once would only make one long outage of it
        else:
            async with self._server:
                target = await step(self, fault.length)
                await asyncio.sleep(CALM)
        self._recorder.note(Fault(at, Recorder.now(), fault.kind, target))

    # Clients

    async def kill_clients(self, length: float) -> str:
        group = self._chance.choice(self._crowd)
        group.send(signal.SIGKILL)
        return group.name

    async def stop_clients(self, length: float) -> str:
        """Let clients stand still, up to longer than a ping may take to be answered."""
        group = self._chance.choice(self._crowd)
        with group.standing_still():
            await asyncio.sleep(15 * length)
        return group.name

    def _link(self) -> tuple[str, Proxy]:
        group = self._chance.choice(self._crowd)
        return group.name, self._chance.choice(group.nodes)

    async def cut_clients(self, length: float) -> str:
        name, link = self._link()
        link.cut()
        return name

    async def stall_clients(self, length: float) -> str:
        name, link = self._link()
        link.stall("up", "down")
        await asyncio.sleep(6 * length)
        link.heal()
        return name

    async def read_slowly(self, length: float) -> str:
        name, link = self._link()
        link.stall("down")
        await asyncio.sleep(6 * length)
        link.heal()
        return name

    async def half_open_to_node(self, length: float) -> str:
        name, link = self._link()
        link.swallow("up")
        return name

    async def half_open_to_client(self, length: float) -> str:
        name, link = self._link()
        link.swallow("down")
        return name

    async def delay_clients(self, length: float) -> str:
        name, link = self._link()
        link.delay = 0.5 * length
        await asyncio.sleep(6 * length)
        link.heal()
        return name

    # Nodes

    async def kill_node(self, length: float) -> str:
        node = self._chance.choice(self._nodes)
        node.send(signal.SIGKILL)
        return node.name

    async def stop_node(self, length: float) -> str:
        """Let a node stand still, up to longer than its lease."""
        node = self._chance.choice(self._nodes)
        with node.standing_still():
            await asyncio.sleep(9 * length)
        return node.name

    async def drain_node(self, length: float) -> str:
        node = self._chance.choice(self._nodes)
        await node.drain()
        return node.name

    # The way to the database

    def _way(self) -> tuple[str, list[Proxy]]:
        node = self._chance.choice(self._nodes)
        return node.name, node.database

    async def cut_database(self, length: float) -> str:
        name, way = self._way()
        for proxy in way:
            proxy.cut()
        return name

    async def stall_database(self, length: float) -> str:
        name, way = self._way()
        for proxy in way:
            proxy.stall("up", "down")
        await asyncio.sleep(6 * length)
        for proxy in way:
            proxy.heal()
        return name

    async def half_open_database(self, length: float) -> str:
        name, way = self._way()
        for proxy in way:
            proxy.swallow(self._chance.choice(("up", "down")))
        return name

    # The database

    async def terminate_backends(self, length: float) -> str:
        for _ in range(3):
            await self._try(_TERMINATE)
            await asyncio.sleep(0.2 * length)
        return "primary"

    async def lock_buckets(self, length: float) -> str:
        """Hold the rows of all buckets for a while, so that the pools of the nodes are used up by who waits."""
        await self._try("BEGIN; SELECT FROM bucket FOR UPDATE", 4 * length)
        return "primary"

    async def use_up_connections(self, length: float) -> str:
        """Take all connections that the server has left."""
        taken: list[asyncpg.Connection] = []
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            while len(taken) < 100:
                taken.append(await self._cluster.primary.connect(3))
        await self._try(_TERMINATE)
        await asyncio.sleep(4 * length)
        for connection in taken:
            connection.terminate()
        return "primary"

    async def _try(self, statement: str, seconds: float = 0.0) -> None:
        """Run a statement, and keep its connection for a while; nothing where the database is away."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            db = await self._cluster.primary.connect(3)
            try:
                await within(db.execute(statement), 5)
                await asyncio.sleep(seconds)
            finally:
                db.terminate()

    async def kill_postgres(self, length: float) -> str:
        self._cluster.primary.kill()
        await asyncio.sleep(2 * length)
        await self._cluster.primary.start()
        return "primary"

    async def kill_backend(self, length: float) -> str:
        """Kill one process of the server: it then ends all others, and recovers."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ProcessLookupError):
            pids = self._cluster.primary.processes()
            self._cluster.primary.kill_one(self._chance.choice(pids[1:]))
        await asyncio.sleep(1.0)
        await self._cluster.primary.start()
        return "primary"

    async def cut_power(self, length: float) -> str:
        """Kill the server, and take from its disk what was not synced."""
        await self._cluster.primary.cut_power(length)
        return "primary"

    async def stop_postgres(self, length: float) -> str:
        with self._cluster.primary.standing_still():
            await asyncio.sleep(8 * length)
        return "primary"

    async def stop_standby(self, length: float) -> str:
        """Let commits wait for a standby that does not answer."""
        with self._cluster.standby.standing_still():
            await asyncio.sleep(4 * length)
        return "standby"

    async def fail_over(self, length: float) -> str:
        await self._cluster.fail_over(lag=length)
        return "primary"

    async def fill_disk(self, length: float) -> str:
        with self._cluster.primary.full_disk():
            await asyncio.sleep(5 * length)
        await self._cluster.primary.start()
        return "primary"

    async def step_clock(self, length: float) -> str:
        """Let the database's clock be an hour ahead for a while, or some seconds behind."""
        server, seconds = self._cluster.primary, self._chance.choice((3600, 30, -30))
        server.step_clock(seconds)
        await asyncio.sleep(5 * length)
        server.step_clock(0)
        return f"primary {seconds:+d} s"


Step = Callable[[Faults, float], Awaitable[str]]

KINDS: dict[str, Step] = {
    step.__name__: step
    for step in (
        Faults.kill_clients,
        Faults.stop_clients,
        Faults.cut_clients,
        Faults.stall_clients,
        Faults.read_slowly,
        Faults.half_open_to_node,
        Faults.half_open_to_client,
        Faults.delay_clients,
        Faults.kill_node,
        Faults.stop_node,
        Faults.drain_node,
        Faults.cut_database,
        Faults.stall_database,
        Faults.half_open_database,
        Faults.terminate_backends,
        Faults.lock_buckets,
        Faults.use_up_connections,
        Faults.kill_postgres,
        Faults.kill_backend,
        Faults.cut_power,
        Faults.stop_postgres,
        Faults.stop_standby,
        Faults.fail_over,
        Faults.fill_disk,
        Faults.step_clock,
    )
}
"""All kinds; each carries itself out for that share of its longest time, and tells what it has broken."""

OF_THE_SERVER = frozenset(
    {
        "kill_postgres",
        "kill_backend",
        "cut_power",
        "stop_postgres",
        "stop_standby",
        "fail_over",
        "fill_disk",
        "step_clock",
    }
)
"""Kinds of which there is only one at a time."""


def possible(cluster: Cluster) -> list[str]:
    """The kinds that this machine allows."""
    impossible = set()
    if not cluster.primary.clock_steps:
        impossible.add("step_clock")
    if not cluster.primary.small_disk:
        impossible.add("fill_disk")
    impossible |= {"cut_power"} if cluster.disk == "plain" else {"fail_over", "stop_standby"}
    return [kind for kind in KINDS if kind not in impossible]
