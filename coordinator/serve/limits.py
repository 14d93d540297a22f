"""The rates and numbers that one connection and one address may use.  protocol.md, "Limits" """

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from coordinator.serve.addresses import Network, client_block, is_trusted

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

    def take(self, amount: float = 1) -> float:
        """Take so many tokens; returns 0, or the seconds until there are as many, and takes none then."""
        now = monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
        self._since = now
        if self._tokens >= amount:
            self._tokens -= amount
            return 0.0

        return (amount - self._tokens) / self._rate

    def owe(self, amount: float) -> None:
        """Take so many tokens though there may be less; until the debt is paid, not even 0 can be taken."""
        self.take(0)
        self._tokens -= amount

    def overdrawn(self) -> float:
        """Return the seconds until no more is owed than one burst; 0 if that is so."""
        if self._tokens >= -self._burst:
            return 0.0
        self.take(0)
        return max(0.0, (-self._burst - self._tokens) / self._rate)

    @property
    def full(self) -> bool:
        """Whether no token is missing."""
        return self._tokens + (monotonic() - self._since) * self._rate >= self._burst


STRANGERS_BYTES_A_MINUTE = 16 * 1024 * 1024
"""Bytes of frames that the connections of one address may send together before their peers are known.

A `hello` and a `register` have some hundred bytes; decoding large frames takes the time of all.
"""

BYTES_A_MINUTE = 2 * 1024 * 1024 * 1024
"""Bytes of frames that one connection of a known peer may send: more than a client can settle in that time."""


class BucketsByAddress:
    """Keeps a token bucket for each address; those that are full again are forgotten now and then."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, TokenBucket] = {}
        self._sweep_at = 10_000

    def take(self, address: str, amount: float = 1) -> float:
        """Charge an address; returns 0, or the seconds until that amount may pass."""
        if len(self._buckets) > self._sweep_at:
            self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.full}
            self._sweep_at = max(10_000, 2 * len(self._buckets))

        return self._bucket(address).take(amount)

    def owe(self, address: str, amount: float) -> None:
        """Charge an address afterwards, be it too much."""
        self._bucket(address).owe(amount)

    def overdrawn(self, address: str) -> float:
        """Return the seconds until an address owes no more than one burst."""
        bucket = self._buckets.get(address)
        return 0.0 if bucket is None else bucket.overdrawn()

    def _bucket(self, address: str) -> TokenBucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(self._per_minute)
        return bucket


class Addresses:
    """Limits the connections and registrations of each address."""

    def __init__(self, connections: int, registrations_per_minute: int) -> None:
        self._max_connections = connections
        self._connections: dict[str, int] = {}
        self.registrations = BucketsByAddress(registrations_per_minute)
        self.strangers_bytes = BucketsByAddress(STRANGERS_BYTES_A_MINUTE)
        """For frames of connections whose peer is not known yet."""

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


MAX_HANDSHAKES = 2000
"""Connections that may be between their accept and the end of their handshake."""

MAX_HANDSHAKES_OF_A_BLOCK = 500
"""The same of one address, or of one IPv6 /64; a restart lets all clients behind one address come at once."""


class Handshakes:
    """Places for connections whose handshake is not done: whoever only connects must not use up what all need."""

    def __init__(self, trusted: Sequence[Network]) -> None:
        self._trusted = trusted
        self._places: dict[str, int] = {}
        self._total = 0

    def enter(self, peer: str) -> str | None:
        """Take a place for a connection from an address; returns what to `leave` by, or None if there is none.

        A trusted proxy may have all of them.
        """
        block = client_block(peer, (), ())
        taken = self._places.get(block, 0)
        crowded = taken >= MAX_HANDSHAKES_OF_A_BLOCK and not is_trusted(peer, self._trusted)
        if crowded or self._total >= MAX_HANDSHAKES:
            return None
        self._places[block] = taken + 1
        self._total += 1
        return block

    def leave(self, block: str) -> None:
        """Give a place back."""
        self._total -= 1
        left = self._places[block] - 1
        if left:
            self._places[block] = left
        else:
            del self._places[block]
