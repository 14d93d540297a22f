"""Signals between nodes over NOTIFY; a node also delivers its own signals to itself, at once.

Wake-ups for work are coalesced: this node sends at most one for each service in 100 ms.  Polling and the leases make
up for lost signals; nothing here is needed for correctness.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct

from coordinator.errors import Unavailable
from coordinator.flow.signal_types import AnySignal, Signal, SignalsMissed, WorkCame
from coordinator.model import Boot, ServiceId
from coordinator.store import nodes
from coordinator.store.faults import UNAVAILABLE_ERRORS
from coordinator.store.pool import Connection, Database

log = structlog.get_logger()

SEND_INTERVAL = 0.1
"""Seconds between two sendings; the wake-ups of one service in between become one."""

MAX_PAYLOAD = 7_900
"""Length of a payload; Postgres takes less than 8,000 bytes."""

CHECK_INTERVAL = 5.0
"""Seconds after which an idle connection is asked whether it still works."""

SignalT = TypeVar("SignalT", bound=Signal)


class _Sender(Struct, rename={"sender": "from"}):
    sender: Boot


class _Envelope(_Sender):
    signal: AnySignal


_SENDER_DECODER = msgspec.json.Decoder(_Sender)
_DECODER = msgspec.json.Decoder(_Envelope)


class Signals:
    """Sends and receives signals on the nodes' channel."""

    def __init__(self, database: Database, boot: Boot, lost_track: asyncio.Event) -> None:
        self._database = database
        self._boot = boot
        self._queue: list[AnySignal] = []
        self._wake_ups: set[ServiceId] = set()
        self._ready = asyncio.Event()
        self._receivers: dict[type[Signal], Callable[[Any], None]] = {}
        self._checked_at = 0.0

        self._lost_track = lost_track
        """Set when the listening connection was lost: the database may have crashed."""
        self.alone = False
        """Whether no other node runs; then wake-ups need not be sent."""

    def on(self, kind: type[SignalT], receiver: Callable[[SignalT], None]) -> None:
        """Call `receiver` for each signal of that type, of this node or another."""
        self._receivers[kind] = receiver

    def work(self, service: ServiceId, *, waiting: bool = False, behind: bool = False) -> None:
        """Tell that there may be work for a service; `waiting` and `behind` as in `WorkCame`."""
        self.deliver(WorkCame(service, waiting, behind))
        if not self.alone:
            self._wake_ups.add(service)
            self._ready.set()

    def tell(self, signal: AnySignal) -> None:
        """Deliver a signal to this node at once, and to the others within SEND_INTERVAL."""
        self.deliver(signal)
        self._queue.append(signal)
        self._ready.set()

    def deliver(self, signal: Signal) -> None:
        """Pass a signal to its receiver on this node."""
        receiver = self._receivers.get(type(signal))
        if receiver is not None:
            receiver(signal)

    async def run(self) -> None:
        """Send and receive until cancelled; a lost connection is opened again."""
        while True:
            try:
                connection = await self._database.listen(nodes.NOTIFY_CHANNEL, self._receive)
            except Unavailable:
                await asyncio.sleep(1.0)
                continue

            self.deliver(SignalsMissed())
            try:
                await self._send(connection)
            except Unavailable:
                self._lost_track.set()
                await asyncio.sleep(1.0)
            finally:
                connection.terminate()

    async def _send(self, connection: Connection) -> None:
        """Send the queued signals each SEND_INTERVAL, while the listening `connection` works."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_INTERVAL):
                    await self._ready.wait()
            await self._check(connection)

            self._ready.clear()
            wake_ups, self._wake_ups = self._wake_ups, set()
            queue, self._queue = self._queue, []
            try:
                await self._notify([*queue, *(WorkCame(service) for service in wake_ups)])
            except Unavailable:
                self._queue[:0] = queue
                self._wake_ups |= wake_ups
                self._ready.set()
                raise
            await asyncio.sleep(SEND_INTERVAL)

    async def _notify(self, signals: Sequence[AnySignal]) -> None:
        async with self._database.connection() as db:
            for signal in signals:
                payload = msgspec.json.encode(_Envelope(self._boot, signal)).decode()
                if len(payload) <= MAX_PAYLOAD:
                    await nodes.notify(db, payload)
                else:
                    log.error("signal too long", kind=type(signal).__name__, size=len(payload))

    async def _check(self, connection: Connection) -> None:
        """Ask the listening connection something now and then: a half-open one receives nothing, without an error.

        Raises:
            Unavailable: the connection is lost.
        """
        now = asyncio.get_running_loop().time()
        if now < self._checked_at + CHECK_INTERVAL and not connection.is_closed():
            return
        self._checked_at = now
        try:
            await nodes.clock(connection)
        except UNAVAILABLE_ERRORS as failure:
            raise Unavailable("The connection that listens was lost.") from failure

    def _receive(self, connection: Connection, pid: int, channel: str, payload: str) -> None:
        try:
            if _SENDER_DECODER.decode(payload).sender == self._boot:
                return
            self.alone = False
            envelope = _DECODER.decode(payload)
        except (msgspec.MsgspecError, RecursionError):
            log.warning("not a signal that this version knows", payload=payload[:100])
        else:
            self.deliver(envelope.signal)
