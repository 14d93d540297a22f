"""The sessions of all channels that are open on this node."""

from __future__ import annotations

from coordinator.serve.admin_channel import AdminSession
from coordinator.serve.client_channel import ClientSession
from coordinator.serve.stats_channel import StatsSession


class OpenSessions:
    """Connections whose handshake is done, by channel; some may not have said hello yet."""

    def __init__(self) -> None:
        self.clients: set[ClientSession] = set()
        self.admins: set[AdminSession] = set()
        self.viewers: set[StatsSession] = set()

    def counts(self) -> dict[str, int]:
        """How many there are of each channel, by its name."""
        return {"client": len(self.clients), "stats": len(self.viewers), "admin": len(self.admins)}

    def client_count(self) -> int:
        """How many there are of the client channel."""
        return len(self.clients)

    def of_token(self, token: str | None = None) -> list[AdminSession | StatsSession]:
        """The sessions that live by that token, or by any."""
        by_token: list[AdminSession | StatsSession] = [*self.admins, *self.viewers]
        return [session for session in by_token if session.token_id is not None and token in (None, session.token_id)]
