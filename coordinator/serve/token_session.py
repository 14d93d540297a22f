"""The `hello` of the channels that tokens open: admin and stats."""

from __future__ import annotations

from typing import ClassVar

from coordinator import credentials
from coordinator.errors import OutOfOrder, Unauthorized
from coordinator.serve.channel import ChannelSession, other_version
from coordinator.store import tokens
from coordinator.store.tokens import Token
from coordinator.wire.frames import PROTOCOL, Close, Request


class TokenSession(ChannelSession):
    """A session that begins with a `hello` that may bear a token; it ends when the token does."""

    hello_type: ClassVar[type[Request]]
    token: Token | None = None

    @property
    def token_id(self) -> str | None:
        """Name the token with which the session was opened, if with one."""
        return None if self.token is None else self.token.token_id

    @property
    def known(self) -> bool:
        return self.token is not None

    async def admit(self, request: Request) -> None:
        if isinstance(request, self.hello_type):
            if self.welcomed:
                raise OutOfOrder("hello is the first message, and comes once.")
        elif not self.welcomed:
            raise OutOfOrder("The first message is hello.")

    async def find_token(self, token: str) -> Token:
        """Look up the token of a `hello`.

        Raises:
            Unauthorized: it is not good.
            Unavailable: the database is away.
        """
        async with self._edge.core.database.connection() as db:
            found = await tokens.find(db, credentials.hash_token(token))
        if found is None:
            raise Unauthorized("That token is not good.", close_code=Close.BAD_CREDENTIALS)
        return found


def check_protocol(protocol: int) -> None:
    """Refuse a `hello` of another version.

    Raises:
        Unsupported: it is not this server's.
    """
    if protocol != PROTOCOL:
        raise other_version(protocol)
