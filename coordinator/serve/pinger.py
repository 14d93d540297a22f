"""Ping all connections with one task, and cut off peers that are gone or do not read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from operator import itemgetter

import structlog
from websockets.protocol import State

from coordinator.serve.connection import PeerConnection
from coordinator.wire.frames import Close

log = structlog.get_logger()

MAX_UNREAD_BYTES_OF_ALL = 256 * 1024 * 1024
"""Bytes that may wait on this node for all its peers together to read them."""

STUCK_AFTER = 10.0
"""Seconds without progress after which a peer with unread bytes is cut off."""


class Pinger:
    """Pings connections, and cuts off silent peers.

    Each peer is pinged every `interval` seconds.  If nothing comes within `timeout` seconds after a ping, it is cut
    off without a close handshake, since it would not answer: at most `interval + timeout` seconds after its last byte.
    Time in which this process stood still does not count: it heard nobody.
    """

    def __init__(self, interval: float, timeout: float) -> None:
        self._interval = interval
        self._timeout = timeout
        # Both are in order of time: each entry is added with `now` plus a constant.
        self._due: OrderedDict[PeerConnection, float] = OrderedDict()
        self._awaited: deque[tuple[float, float, PeerConnection]] = deque()
        self._stuck: dict[PeerConnection, tuple[int, float]] = {}

    def add(self, peer: PeerConnection) -> None:
        """Begin to ping a peer."""
        self._due[peer] = peer.connection.loop.time() + self._interval

    def remove(self, peer: PeerConnection) -> None:
        """Stop pinging a peer."""
        self._due.pop(peer, None)
        self._stuck.pop(peer, None)

    async def run(self) -> None:
        """Ping and check until cancelled."""
        loop = asyncio.get_running_loop()
        tick = min(0.25, self._interval / 4, self._timeout / 4)
        next_sweep = 0.0
        expected = loop.time()

        while True:
            now = loop.time()
            self._give_time(now - expected)
            self._ping_due(now)
            self._check_awaited(now)

            if now >= next_sweep:
                self._sweep(now)
                next_sweep = now + 1.0
            expected = now + tick
            await asyncio.sleep(tick)

    def _give_time(self, late: float) -> None:
        """Let all have more time, by as much as this look comes late: what they have sent may not be read yet."""
        if late > 0:
            self._awaited = deque((until + late, sent, peer) for until, sent, peer in self._awaited)
            self._stuck = {peer: (unread, since + late) for peer, (unread, since) in self._stuck.items()}

    def _ping_due(self, now: float) -> None:
        while self._due:
            peer, due = next(iter(self._due.items()))
            if due > now:
                return

            self._due[peer] = now + self._interval
            self._due.move_to_end(peer)
            self._awaited.append((now + self._timeout, now, peer))
            if peer.connection.protocol.state is State.OPEN:
                peer.connection.protocol.send_ping(b"")
                peer.connection.send_data()

    def _check_awaited(self, now: float) -> None:
        while self._awaited and self._awaited[0][0] <= now:
            _, sent, peer = self._awaited.popleft()
            if peer in self._due and peer.connection.heard_at < sent and not peer.at_work:
                log.info("peer gone", silent=round(now - peer.connection.heard_at, 1), **peer.log_fields)
                peer.connection.transport.abort()

    def _bound_memory(self) -> None:
        """Cut off those for whom most waits, while too much waits on this node."""
        waiting = [(peer.unread(), peer) for peer in self._due]
        total = sum(unread for unread, _ in waiting)
        if total <= MAX_UNREAD_BYTES_OF_ALL:
            return

        for unread, peer in sorted(waiting, key=itemgetter(0), reverse=True):
            peer.end(Close.SLOW_READER, "too slow a reader")
            total -= unread
            if total <= MAX_UNREAD_BYTES_OF_ALL:
                return

    def _sweep(self, now: float) -> None:
        """Cut off those that have taken nothing for a while of what waits for them, and those that use up memory."""
        self._bound_memory()
        for peer in list(self._due):
            unread = peer.unread()
            if not unread:
                self._stuck.pop(peer, None)
                continue
            before, since = self._stuck.get(peer, (unread + 1, now))
            if unread < before:
                self._stuck[peer] = (unread, now)
            elif now - since > STUCK_AFTER:
                peer.end(Close.SLOW_READER, "too slow a reader")
