"""The sessions of all channels that are open on this node."""

from __future__ import annotations

from coordinator.serve.admin_channel import AdminSession
from coordinator.serve.client_channel import ClientSession
from coordinator.serve.stats_channel import StatsSession


class OpenSessions:
    """The sessions by channel, from the WebSocket handshake on; some may not have sent `hello` yet."""

    def __init__(self) -> None:
        self.clients: set[ClientSession] = set()
        self.admins: set[AdminSession] = set()
        self.viewers: set[StatsSession] = set()

    def counts(self) -> dict[str, int]:
        """Return the number of sessions by channel name."""
        return {"client": len(self.clients), "stats": len(self.viewers), "admin": len(self.admins)}

    def client_count(self) -> int:
        """Return the number of sessions of the client channel."""
        return len(self.clients)

    def of_token(self, token: str | None = None) -> list[AdminSession | StatsSession]:
        """Return the sessions that were opened with that token; with any token for None."""
        by_token: list[AdminSession | StatsSession] = [*self.admins, *self.viewers]
        return [session for session in by_token if session.token_id is not None and token in (None, session.token_id)]
