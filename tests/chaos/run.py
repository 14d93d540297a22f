"""One run of chaos, from an empty database to the decision of the checker."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic

import asyncpg
from websockets.exceptions import WebSocketException

from coordinator.errors import CoordinatorError
from tests.bench.peer import Peer
from tests.bench.world import folder_for_postgres, prepared
from tests.bounded import within
from tests.chaos.checker import Run, Violation, check
from tests.chaos.cluster import Cluster
from tests.chaos.faults import EVERY, Faults, plan, possible
from tests.chaos.history import History, Ok, Recorder
from tests.chaos.processes import READY_WITHIN, NodeProcess, VolunteerProcess, kept_running
from tests.chaos.programs import Disk
from tests.chaos.rows import Rows, read_rows
from tests.chaos.volunteers import SERVICE

GROUP = 5
"""Clients of one process; half of the processes are careful, and no fault is aimed at them."""

THINK = 0.6

BUCKET = 4
ADD_EVERY = 0.5
ITEMS_A_CLIENT = 2.0
"""Items that are added each time, for each client."""

DEAD_AFTER = 15.0
"""An outage or a step of the clock may pass it, and that must be nobody's fault."""

DRAINED_WITHIN = 60.0

SETTINGS = {
    "bucket_size": BUCKET,
    "release_after": 10.0,
    "result_schema": {"type": "object", "properties": {"token": {"type": "string"}}, "required": ["token"]},
}

GONE = (OSError, EOFError, TimeoutError, WebSocketException, AssertionError, CoordinatorError)
"""Ends of an admin's connection; the assertion is that of a refusal."""


@dataclass(frozen=True, slots=True)
class Order:
    """A run to come; `kinds` are those of faults, all that are possible if there are none."""

    seed: int
    seconds: float
    nodes: int = 2
    clients: int = 20
    kinds: tuple[str, ...] = ()
    every: float = EVERY
    mutation: str | None = None
    disk: Disk = "plain"
    drain: float = DRAINED_WITHIN
    """Seconds in which everything is to be settled, once all is mended."""
    careful: bool = False
    """Whether all clients are, and none plays tricks."""
    group: int = GROUP
    """Clients of one process."""
    think: float = THINK
    """Seconds that a client waits at most before it submits."""
    items_a_client: float = ITEMS_A_CLIENT
    dead_after: float = DEAD_AFTER
    flags: tuple[str, ...] = ()
    """Flags of the nodes, besides those that make them notice things soon."""


@dataclass(slots=True)
class Outcome:
    """The end of a run; `drained` is in seconds, None if not all was."""

    order: Order
    history: History = field(default_factory=History)
    faults: Counter[str] = field(default_factory=Counter)
    submits: int = 0
    items: int = 0
    drained: float | None = None
    violations: list[Violation] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    """Tracebacks in the logs of nodes."""


class ItemFeeder:
    """Adds items until it is stopped, at whatever node can be reached."""

    def __init__(self, nodes: Sequence[NodeProcess], token: str, count: int) -> None:
        self._nodes = nodes
        self._token = token
        self._count = count
        self._peer: Peer | None = None
        self._stopped = asyncio.Event()
        self.acknowledged: set[str] = set()

    async def request(self, kind: str, **fields: object) -> bool:
        """Make a request, at another node each time that one fails; returns whether it was done."""
        try:
            async with asyncio.timeout(20):
                if self._peer is None:
                    self._peer = await self._connected()
                await self._peer.request(kind, **fields)
        except GONE:
            if self._peer is not None:
                self._peer.connection.transport.abort()
                self._peer = None
            return False
        return True

    async def _connected(self) -> Peer:
        ports = [node.port for node in self._nodes if node.port is not None]
        if not ports:
            raise EOFError
        peer = await Peer.open(f"ws://127.0.0.1:{random.choice(ports)}/v1/admin")
        await peer.request("hello", protocol=1, token=self._token)
        return peer

    async def run(self) -> None:
        """Add items until `stop`; some again, if it is not known whether they were added."""
        number = 0
        while self._count and not self._stopped.is_set():
            if await self.add([f"item{number + n}" for n in range(self._count)]):
                number += self._count
            with contextlib.suppress(TimeoutError):
                await within(self._stopped.wait(), ADD_EVERY)

    async def add(self, keys: Sequence[str]) -> bool:
        """Add items with these keys; returns whether that was acknowledged."""
        done = await self.request("item.add", items=[{"key": key} for key in keys], services=[SERVICE])
        if done:
            self.acknowledged.update(keys)
        return done

    def stop(self) -> None:
        """Let `run` return, once what it does now is done."""
        self._stopped.set()


@dataclass(frozen=True, slots=True)
class Scene:
    """All that takes part in a run, for those who disturb it."""

    folder: Path
    """Where all write their histories."""
    cluster: Cluster
    nodes: Sequence[NodeProcess]
    crowd: Sequence[VolunteerProcess]
    feeder: ItemFeeder
    recorder: Recorder


Disturb = Callable[[Scene], Awaitable[None]]
"""Disturbs a run; returns when all is mended."""


async def run(order: Order, *, keep: Path | None = None, disturb: Disturb | None = None) -> Outcome:
    """Carry out one run; with `keep`, its logs and history stay in that folder.

    It is disturbed by the faults that its seed gives, unless `disturb` does it.
    """
    outcome = Outcome(order)
    folder = await asyncio.to_thread(folder_for_postgres, "chaos")
    cluster = await asyncio.to_thread(Cluster, folder, order.disk)
    try:
        await cluster.start()
        token = await prepared(cluster.primary.dsn)
        await cluster.secure()
        await _run_on(order, outcome, cluster, token, folder, disturb or partial(_draw_faults, order))
    finally:
        await cluster.stop()
        if keep is not None:
            shutil.copytree(folder, keep, ignore=shutil.ignore_patterns("one*", "two*"), dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


async def _run_on(order: Order, outcome: Outcome, cluster: Cluster, token: str, folder: Path, disturb: Disturb) -> None:
    nodes = [NodeProcess(f"node{n}", folder, cluster, order.mutation, order.flags) for n in range(order.nodes)]
    crowd = crowd_of(order, folder)
    feeder = ItemFeeder(nodes, token, round(order.items_a_client * order.clients))
    scene = Scene(folder, cluster, nodes, crowd, feeder, Recorder(folder / "faults.history"))

    settings = {**SETTINGS, "dead_after": order.dead_after}

    async with kept_running(nodes, crowd):
        while not await feeder.request("service.add", service=SERVICE, plugin="generic", settings=settings):  # noqa: ASYNC110
            await asyncio.sleep(0.2)

        await _all_at_work(cluster, order.clients)

        async with asyncio.TaskGroup() as group:
            group.create_task(feeder.run())
            await disturb(scene)
            feeder.stop()

        for member in crowd:
            member.calm_down()
        outcome.drained = await _drain(cluster, feeder, order.drain)
        for node in nodes:  # whose counters are in the database when they have ended
            node.keep_down()
            await node.drain()

    rows = await read_rows(cluster.primary.dsn, SERVICE)
    history = await asyncio.to_thread(lambda: History.read(folder.glob("*.history")))
    innocent = frozenset(name for group in crowd if group.careful for name in group.clients)
    _judge(outcome, history, rows, innocent, frozenset(feeder.acknowledged))
    for node in nodes:
        outcome.violations += [Violation("nodes_end_in_time", text) for text in node.hung]
        outcome.errors += node.errors()


async def _draw_faults(order: Order, scene: Scene) -> None:
    """Carry out the faults that the seed of a run gives."""
    kinds = order.kinds or tuple(possible(scene.cluster))
    faults = Faults(scene.cluster, scene.nodes, scene.crowd, scene.recorder, random.Random(order.seed))
    await faults.carry_out(plan(order.seed, order.seconds, kinds, order.every))


async def _all_at_work(cluster: Cluster, clients: int) -> None:
    statement = "SELECT count(DISTINCT client_id) FROM session WHERE ended_at IS NULL"
    async with asyncio.timeout(READY_WITHIN):
        while await cluster.primary.execute(statement) < clients:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.2)


def crowd_of(order: Order, folder: Path) -> list[VolunteerProcess]:
    """The groups of clients of a run, careful ones and others in turn."""
    names, size = [f"client{n}" for n in range(order.clients)], order.group
    return [
        VolunteerProcess(
            f"group{n}",
            folder,
            names[n * size :][:size],
            order.seed * 1000 + n * 100,
            careful=order.careful or n % 2 == 0,
            think=order.think,
        )
        for n in range((order.clients + size - 1) // size)
    ]


def _judge(outcome: Outcome, history: History, rows: Rows, innocent: frozenset[str], added: frozenset[str]) -> None:
    outcome.history = history
    outcome.faults = Counter(fault.kind for fault in history.faults)
    outcome.submits = sum(
        call.invoked.operation == "submit" and isinstance(call.end, Ok) and not call.end.duplicate
        for call in history.calls
    )
    outcome.items = len(rows.items)
    outcome.violations = check(Run(history, rows, innocent, added))


_LEFT = """
SELECT (SELECT coalesce(sum(e.items), 0) FROM enrolment e JOIN service s USING (service_id) WHERE s.name = $1)
     - (SELECT count(DISTINCT item_id) FROM result JOIN service s USING (service_id) WHERE s.name = $1)"""

_QUARANTINED = "SELECT key FROM quarantine JOIN item USING (item_id)"


async def _drain(cluster: Cluster, feeder: ItemFeeder, within: float) -> float | None:
    """Wait until all is settled; returns the seconds that took, None if it was not in time."""
    begun = monotonic()
    while monotonic() < begun + within:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            db = await cluster.primary.connect(5)
            try:
                if await db.fetchval(_LEFT, SERVICE, timeout=10) == 0:
                    return monotonic() - begun
                keys = [row["key"] for row in await db.fetch(_QUARANTINED)]
            finally:
                db.terminate()
            if keys:
                await feeder.request("item.retry", keys=keys[:1000], service=SERVICE)
        await asyncio.sleep(0.25)
    return None
