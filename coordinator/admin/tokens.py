"""The requests `token.…`: issue, list, revoke.  protocol.md, "token.issue" """

from __future__ import annotations

from coordinator import credentials
from coordinator.admin import Steps
from coordinator.errors import NotFound
from coordinator.flow.core import Core
from coordinator.flow.signal_types import TokenEnded
from coordinator.stats.rows import filled
from coordinator.store import tokens as store
from coordinator.wire.admin import tokens as wire


class TokenRequests:
    """Carries out the requests `token.…`."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._signals = core.signals

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.TokenIssue: self.issue,
            wire.TokenList: self.list,
            wire.TokenRevoke: self.revoke,
        }

    async def issue(self, request: wire.TokenIssue) -> wire.TokenIssued:
        """Make a token; this answer is the only place where it stands."""
        made = credentials.make_token()
        async with self._database.connection() as db:
            await store.issue(
                db, made.token_id, made.hash, request.role, request.label, request.expires_in, request.uses
            )
        return wire.TokenIssued(token_id=made.token_id, token=made.token, role=request.role, label=request.label)

    async def list(self, request: wire.TokenList) -> wire.TokenPage:
        """List tokens by id, without the tokens themselves."""
        async with self._database.connection() as db:
            found = await store.page(db, request.after or "", request.limit)
        rows = [filled(wire.ListedToken, row) for row in found]
        return wire.TokenPage(rows=rows, next=rows[-1].token_id if len(rows) == request.limit else None)

    async def revoke(self, request: wire.TokenRevoke) -> wire.TokenRevoked:
        """End a token and the sessions that live by it.

        Raises:
            NotFound: there is no such token, or it is revoked already.
        """
        async with self._database.connection() as db:
            if not await store.revoke(db, request.token_id):
                raise NotFound("There is no such token, or it is revoked already.")
        self._signals.tell(TokenEnded(request.token_id))
        return wire.TokenRevoked(revoked=1)
