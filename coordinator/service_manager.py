"""Tells systemd, or another manager that speaks its protocol, that this process serves and lives (sd_notify(3)).

Written by hand, since it is one datagram; without `$NOTIFY_SOCKET` nothing is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from coordinator.config import Supervision, supervision

PINGS_A_TIMEOUT = 3
"""How often the process tells that it lives, within the time after which it would be ended."""


class SystemdNotifier:
    """Sends the states of this process to the service manager that has started it."""

    def __init__(self, found: Supervision) -> None:
        self._found = found

    def tell(self, state: str) -> None:
        """Tell a state, such as `READY=1`; a manager that does not listen is no reason to fail."""
        address = self._found.socket
        if address is None:
            return
        if address.startswith("@"):  # of Linux, without a file
            address = "\0" + address[1:]
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), address)

    async def run(self) -> None:
        """Tell again and again that this process lives, as long as its event loop gets to it; until cancelled."""
        while self._found.watchdog is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self._found.watchdog / PINGS_A_TIMEOUT)


@contextlib.asynccontextmanager
async def ready() -> AsyncIterator[None]:
    """Tell the manager that this process serves, then that it lives, and at the end that it stops."""
    notifier = SystemdNotifier(supervision())
    notifier.tell("READY=1")
    pinging = asyncio.create_task(notifier.run(), name="watchdog")
    try:
        yield
    finally:
        notifier.tell("STOPPING=1")
        pinging.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pinging
