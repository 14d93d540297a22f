"""The rates and numbers that one connection and one address may use.  protocol.md, "Limits" """

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from time import monotonic
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_REFUSALS_IN_A_ROW = 50
"""Messages, or registrations, refused in a row for their rate; then the connection is closed with 4429."""


class TokenBucket:
    """Allows `per_minute` a minute, in bursts of a tenth of that, at least 10."""

    __slots__ = ("_burst", "_rate", "_since", "_tokens")

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._burst = max(10.0, per_minute / 10)
        self._tokens = self._burst
        self._since = monotonic()

    def take(self) -> float:
        """Take a token; returns 0, or the seconds until there is one."""
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0

        return (1 - self._tokens) / self._rate

    @property
    def full(self) -> bool:
        """Whether no token is missing."""
        return self._tokens + (monotonic() - self._since) * self._rate >= self._burst


class Addresses:
    """Limits the connections and registrations of each address."""

    def __init__(self, connections: int, registrations_per_minute: int, trusted: Sequence[Network]) -> None:
        self._max_connections = connections
        self._per_minute = registrations_per_minute
        self._trusted = trusted
        self._connections: dict[str, int] = {}
        self._registrations: dict[str, TokenBucket] = {}
        self._sweep_at = 10_000

    def address_of(self, peer: str, forwarded: str | None) -> str:
        """Return the address of a client: behind trusted proxies, the last forwarded one that is not theirs."""
        hops = [hop.strip() for hop in (forwarded or "").split(",") if hop.strip()]
        address = peer
        while self._is_trusted(address) and hops:
            address = hops.pop()
        return _network(address)

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == net.version and parsed in net for net in self._trusted)

    def full(self, address: str) -> bool:
        """Return whether an address has as many connections as it may have."""
        return self._connections.get(address, 0) >= self._max_connections

    def enter(self, address: str) -> None:
        """Count a connection that opens."""
        self._connections[address] = self._connections.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """Count a connection that ends."""
        left = self._connections.get(address, 0) - 1
        if left > 0:
            self._connections[address] = left
        else:
            self._connections.pop(address, None)

    def register(self, address: str) -> float:
        """Count a registration; returns 0 if it may pass, or the seconds until the next one may."""
        if len(self._registrations) > self._sweep_at:
            self._registrations = {k: v for k, v in self._registrations.items() if not v.full}
            self._sweep_at = max(10_000, 2 * len(self._registrations))

        bucket = self._registrations.get(address)
        if bucket is None:
            bucket = self._registrations[address] = TokenBucket(self._per_minute)
        return bucket.take()


def _network(address: str) -> str:
    """Return the /64 network of an IPv6 address, since one client has all of it; an IPv4 address as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and not parsed.is_loopback:
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def forwarded_for(headers: Any) -> str | None:
    """Return the X-Forwarded-For of a request, its lines joined; None if it has none."""
    lines = headers.get_all("X-Forwarded-For")
    return ",".join(lines) if lines else None
