"""One account of what clients cost: each request has a price, charged to the client and to its block of addresses.

What a session may send at all is in `limits.py` (frames, bytes).  Two things are no rate, must hold over all nodes, and
so are kept in the database: what giving buckets back costs is charged where they are freed, by `free_buckets` of the
schema, and how many keys a client may read before it settles some is checked by each claim, by `may_hold`.

The prices here are of the requests that make the database or other nodes work and bring nothing: a client that only
asks and submits pays nothing.  They are in statements and not in the time that those take: a database that others have
made slow is not the fault of who waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.errors import RateLimited
from coordinator.flow.session_registry import Identity
from coordinator.observe.cost_counts import CostCounts
from coordinator.serve.addresses import is_here
from coordinator.serve.connection import LARGE
from coordinator.serve.limits import MAX_REFUSALS_IN_A_ROW, BucketsByAddress
from coordinator.wire import client as wire
from coordinator.wire.codec import tag_of
from coordinator.wire.frames import Close, Request

PRICES: Mapping[type[Request], float] = {
    wire.Hello: 10,
    wire.Register: 20,
    wire.Unregister: 20,
    wire.Join: 10,
    wire.Leave: 10,
    wire.Activate: 10,
    wire.Recollect: 10,
    wire.Report: 5,
    wire.Services: 2,
    wire.Ask: 0,
    wire.Submit: 0,
    wire.Release: 1,
    wire.MeExport: 50,  # it reads tables of other clients, too
}
"""About how many statements of all nodes together a request makes; what is worked on is free."""

REFUSED_SUBMIT = 10.0
"""Price of a submit that was refused: it was read for nothing, and perhaps its claim was looked up."""

SUBMIT_IN_VAIN = 4.0
"""Price of a submit through which nothing was stored, such as a repeated one: a look at the claim, a transaction."""

ASK_IN_VAIN = 2.0
"""Price of an ask that did not get all at once: the database was asked why, or whether there is something."""

OF_A_CLIENT = 60_000
"""The price of all that one client may ask for in a minute, over its sessions on a node: a hundred joins a second."""

OF_A_BLOCK = 240_000
"""The same of all strangers and newcomers of one block of addresses: 400 may say hello each second, so that all of a
school may come back at once."""

OF_ALL_IN_A_BLOCK = 600_000
"""The same of all others of one block: one settled item must not be the way out of the account."""

REFUSED_BYTES_OF_A_CLIENT = 64 * 1024 * 1024
"""Bytes of large frames that one client may send in vain in a minute, over its sessions on a node."""

REFUSED_BYTES_OF_A_BLOCK = 256 * 1024 * 1024
"""The same of all newcomers of one block of addresses."""


class Costs:
    """The accounts of clients and of blocks of addresses on this node; one that is settled is forgotten."""

    def __init__(self) -> None:
        self.counts = CostCounts(tag_of(request) for request in PRICES)
        self._clients = BucketsByAddress(OF_A_CLIENT)
        self._blocks = BucketsByAddress(OF_A_BLOCK)
        self._all_in_blocks = BucketsByAddress(OF_ALL_IN_A_BLOCK)
        self._refused_of_clients = BucketsByAddress(REFUSED_BYTES_OF_A_CLIENT)
        self._refused_of_blocks = BucketsByAddress(REFUSED_BYTES_OF_A_BLOCK)

    def charge(self, request: Request, address: str, identity: Identity | None) -> None:
        """Charge a request before it is looked at; `identity` is None before its `hello`.

        Raises:
            RateLimited: the client, or its block, has cost too much.
        """
        price = PRICES[type(request)]
        if price:
            seconds = 0.0 if identity is None else self._clients.take(identity.client_id, price)
            seconds = seconds or self._take_of_block(price, address, identity)
        else:
            seconds = 0.0 if identity is None else self._clients.overdrawn(identity.client_id)

        if seconds:
            self.counts.refused[tag_of(type(request))] += 1
            raise RateLimited(
                "Too many requests that bring nothing.",
                retry_after=round(seconds, 3),
                scope="connection" if identity is None else "client",
            )
        self.counts.charged[tag_of(type(request))] += price

    def charge_vain(self, request: type[Request], price: float, address: str, identity: Identity) -> None:
        """Charge a request that has turned out to be in vain; it is answered all the same.

        A client may go into debt by that.  Once it owes more than a burst, not even what is free is read.
        """
        self.counts.charged[tag_of(request)] += price
        self._clients.owe(identity.client_id, price)
        self._take_of_block(price, address, identity)

    def charge_refused(self, size: int, address: str, identity: Identity) -> None:
        """Charge the bytes of a large frame that was refused for what is in it."""
        self._refused_of_clients.owe(identity.client_id, size)
        if identity.is_newcomer and not is_here(address):
            self._refused_of_blocks.owe(address, size)

    def wait_after_refused(self, address: str, identity: Identity) -> float:
        """Return for how many seconds no more large frames are read, since too many were refused; 0 for none."""
        seconds = self._refused_of_clients.take(identity.client_id, 0)
        if not seconds and identity.is_newcomer and not is_here(address):
            seconds = self._refused_of_blocks.take(address, 0)
        return seconds

    def _take_of_block(self, price: float, address: str, identity: Identity | None) -> float:
        """Charge a block of addresses; returns 0, or the seconds until that amount may pass."""
        if is_here(address):
            return 0.0
        newcomer = identity is None or identity.is_newcomer
        return (self._blocks if newcomer else self._all_in_blocks).take(address, price)


class SessionAccount:
    """Charges what one session does to its client and its block; `identity` is None before its `hello`."""

    def __init__(self, costs: Costs, address: str) -> None:
        self.identity: Identity | None = None
        self._costs = costs
        self._address = address
        self._refused = 0

    def charge(self, request: Request) -> None:
        """Charge a request before it is looked at; who goes on though it has cost too much is closed.

        Raises:
            RateLimited
        """
        try:
            self._costs.charge(request, self._address, self.identity)
        except RateLimited as refusal:
            self._refused += 1
            if self._refused >= MAX_REFUSALS_IN_A_ROW:
                refusal.close_code = Close.TOO_MANY
            raise
        self._refused = 0

    def charge_vain(self, request: type[Request], price: float) -> None:
        """Charge a request that has turned out to be in vain."""
        if self.identity is not None:
            self._costs.charge_vain(request, price, self._address, self.identity)

    def charge_refused(self, size: int) -> None:
        """Charge the bytes of a frame that was refused for what is in it, if it was large."""
        if size > LARGE and self.identity is not None:
            self._costs.charge_refused(size, self._address, self.identity)

    def wait_before(self, size: int) -> float:
        """Return the seconds until a frame of that size may be read."""
        if size <= LARGE or self.identity is None:
            return 0.0
        return self._costs.wait_after_refused(self._address, self.identity)
