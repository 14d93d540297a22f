"""Requests `token.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, PageSize, Request, Text

TokenRole = Literal["admin", "operator", "viewer", "enrolment"]


class ListedToken(Struct):
    """A token without the token itself; `expires_at` and `uses_left` are null where it has no end."""

    token_id: str
    role: TokenRole
    label: str
    created_at: str
    expires_at: str | None
    uses_left: int | None
    revoked: bool


class TokenIssue(Request, tag="token.issue"):
    """Make a token, which is shown this once."""

    role: TokenRole
    label: Text
    expires_in: Annotated[float, Meta(gt=0)] | None = None
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class TokenIssued(Ok, kw_only=True):
    """The new token."""

    token_id: str
    token: str
    role: TokenRole
    label: str


class TokenList(Request, tag="token.list"):
    """List tokens by id, without the tokens themselves."""

    limit: PageSize = 100
    after: After | None = None


class TokenPage(Ok, kw_only=True):
    """One page of tokens."""

    rows: list[ListedToken]
    next: str | None


class TokenRevoke(Request, tag="token.revoke"):
    """End a token and the sessions that use it."""

    token_id: Annotated[str, Meta(max_length=64)]


class TokenRevoked(Ok, kw_only=True):
    """How many tokens were revoked."""

    revoked: int


ANSWERS: dict[type[Request], type[Answer]] = {
    TokenIssue: TokenIssued,
    TokenList: TokenPage,
    TokenRevoke: TokenRevoked,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({TokenIssue, TokenList, TokenRevoke})
