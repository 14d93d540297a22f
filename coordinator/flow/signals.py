"""What nodes tell each other over NOTIFY, and themselves at once.

Wake-ups for work are coalesced: at most one a service and 100 ms leaves this node.  Whatever is lost is made good by
polling and by the leases; nothing here is needed for correctness.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import orjson
import structlog

from coordinator.errors import Unavailable
from coordinator.model import Boot, ServiceId
from coordinator.store import nodes
from coordinator.store.pool import UNAVAILABLE_ERRORS, Connection, Database

log = structlog.get_logger()

COALESCE = 0.1
MAX_PAYLOAD = 7_900

Heard = Callable[[dict[str, Any]], None]


class Signals:
    """Speaks and listens on the nodes' channel.

    A signal is a small object with its `kind`: `work {service, waiting?}` (the latter is not sent), `services {}`,
    `client {client, reason?}`, `lost {claims: [[client, bucket, claim]], reason}`, `dead {claims, release_after}`,
    `token {token}`, `drain {node}`, `node {}` (one has started).
    """

    def __init__(self, database: Database, boot: Boot) -> None:
        self._database = database
        self._boot = boot
        self._queue: list[dict[str, Any]] = []
        self._works: set[ServiceId] = set()
        self._ready = asyncio.Event()
        self._heard: dict[str, Heard] = {}
        self._looked = 0.0
        self.resync: Callable[[], None] = lambda: None
        """Called when signals may have been missed: what they would have told is to be read again."""
        self.interrupted: Callable[[], None] = lambda: None
        """Called when the connection that listens was lost: the database may have crashed."""
        self.alone = False
        """No other node runs; then wake-ups need not leave this one."""

    def on(self, kind: str, heard: Heard) -> None:
        """Call `heard` for each signal of that kind, of this node or another."""
        self._heard[kind] = heard

    def work(self, service: ServiceId, *, waiting: bool = False) -> None:
        """There may be work for a service; `waiting`: new items, which are in no bucket yet."""
        self._heard["work"]({"kind": "work", "service": service, "waiting": waiting})
        if not self.alone:
            self._works.add(service)
            self._ready.set()

    def tell(self, kind: str, **fields: Any) -> None:
        """Tell this node at once and the others soon."""
        signal = {"kind": kind, **fields}
        self._heard[kind](signal)
        self._queue.append(signal)
        self._ready.set()

    async def run(self) -> None:
        """Send and listen, until cancelled; a lost connection is made again."""
        while True:
            try:
                connection = await self._database.listen(nodes.NOTIFY_CHANNEL, self._receive)
            except Unavailable:
                await asyncio.sleep(1.0)
                continue
            self.resync()
            try:
                await self._send(connection)
            except Unavailable:
                self.interrupted()
                await asyncio.sleep(1.0)
            finally:
                connection.terminate()

    async def _send(self, connection: Connection) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self._ready.wait()
            await self._look_after(connection)
            self._ready.clear()
            works, self._works = self._works, set()
            queue, self._queue = self._queue, []
            signals = queue + [{"kind": "work", "service": service} for service in works]
            try:
                async with self._database.connection() as db:
                    for signal in signals:
                        payload = orjson.dumps({**signal, "from": self._boot}).decode()
                        if len(payload) <= MAX_PAYLOAD:
                            await nodes.notify(db, payload)
                        else:
                            log.error("signal too long", kind=signal["kind"], size=len(payload))
            except Unavailable:
                self._queue[:0] = queue
                self._works |= works
                self._ready.set()
                raise
            await asyncio.sleep(COALESCE)

    async def _look_after(self, connection: Connection) -> None:
        """A half-open connection hears nothing and does not know it: ask it something now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._looked + 5.0 and not connection.is_closed():
            return
        self._looked = now
        try:
            await nodes.clock(connection)
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable("The connection that listens was lost.") from failure

    def _receive(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        try:
            signal = orjson.loads(payload)
        except orjson.JSONDecodeError:
            log.warning("not a signal of ours", payload=payload[:100])
            return
        if signal.get("from") == self._boot:
            return
        self.alone = False
        heard = self._heard.get(signal.get("kind"))
        if heard is not None:
            heard(signal)


def batches(claims: list[list[Any]], size: int = 60) -> list[list[list[Any]]]:
    """Cut a list of claims so that each part fits into one signal (about 115 bytes a claim)."""
    return [claims[at : at + size] for at in range(0, len(claims), size)]
