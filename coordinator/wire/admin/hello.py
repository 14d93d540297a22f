"""The first message of the admin channel, and its answer."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from coordinator.wire.frames import Answer, Request, ServerCard

Role = Literal["admin", "operator"]


class AdminHello(Request, tag="hello"):
    """The first message of the admin channel."""

    protocol: int
    token: Annotated[str, Meta(max_length=256)]


class AdminWelcome(Answer, tag="welcome", kw_only=True):
    """The token is good; `role` is what it allows."""

    role: Role
    label: str
    server: ServerCard
    protocol: int


ANSWERS: dict[type[Request], type[Answer]] = {AdminHello: AdminWelcome}
