"""The admin channel: requests of operators, one after the other, each noted in the activity log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from coordinator.errors import Forbidden, NotFound, PeerError, Unavailable, UnknownBucket
from coordinator.serve.channel import Edge, Step
from coordinator.serve.connection import TimestampedConnection
from coordinator.serve.token_session import TokenSession, check_protocol
from coordinator.store import activity
from coordinator.wire import admin as wire
from coordinator.wire.admin.items import ItemAdd
from coordinator.wire.admin.system import Health, LimitsShow, Stats
from coordinator.wire.codec import Codec, tag_of
from coordinator.wire.frames import PROTOCOL, Answer, Close, Request
from coordinator.wording import counted

log = structlog.get_logger()

CODEC: Codec[Request] = Codec(*wire.ANSWERS, deep=ItemAdd)

MAX_ADMIN_FRAME_BYTES = 16 * 1024 * 1024
"""Largest frame from an admin: `item.add` takes thousands of items at once."""

NOT_LOGGED: frozenset[type[Request]] = frozenset({Stats, LimitsShow, Health})
"""Requests that live views repeat; they are not noted in the activity log."""

READ_ONLY: frozenset[type[Request]] = frozenset(
    one
    for one in wire.ANSWERS
    if tag_of(one).endswith(
        (".list", ".show", ".waiting", ".quarantined", ".export", ".changes", ".plugins", ".invalidations")
    )
)
"""Requests that change nothing and so are no event; those of `NOT_LOGGED` are none either."""

READ_AT_ONCE = 2
"""Requests of all admins that only read and are carried out at a time: most connections to the database are for the
work, however many scripts list how much."""


@dataclass(frozen=True, slots=True)
class AdminDependencies:
    """The parts that an admin session works with: each request and the function that carries it out."""

    steps: Mapping[type[Request], Step]
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READ_AT_ONCE))


class AdminSession(TokenSession):
    """One session of one admin or operator."""

    codec = CODEC
    hello_type = wire.AdminHello
    refusals_logged_at = logging.INFO

    def __init__(
        self, connection: TimestampedConnection, address: str, edge: Edge, dependencies: AdminDependencies
    ) -> None:
        super().__init__(connection, address, edge)
        self._database = edge.core.database
        self._steps = dependencies.steps
        self._reads = dependencies.reads

    async def run(self) -> None:
        """Serve the session until it ends."""
        await self.frames()

    @property
    def welcomed(self) -> bool:
        return self.token is not None

    @property
    def log_fields(self) -> dict[str, str]:
        return {"address": self.address, **({} if self.token is None else {"token": self.token.token_id})}

    async def admit(self, request: Request) -> None:
        await super().admit(request)
        if self.token is not None and self.token.role != "admin" and type(request) in wire.ADMIN_ONLY:
            raise Forbidden(f"{tag_of(type(request))} needs an admin's token.")

    def step_for(self, request: Request) -> Step:
        if isinstance(request, wire.AdminHello):
            return self._hello
        step = self._steps[type(request)]
        return partial(self._read, step) if self.needs_its_peer(request) else step

    def needs_its_peer(self, request: Request) -> bool:
        return type(request) in READ_ONLY or type(request) in NOT_LOGGED

    async def _read(self, step: Step, request: Request) -> Answer | None:
        async with self._reads:
            return await step(request)

    async def _hello(self, hello: wire.AdminHello) -> Answer:
        check_protocol(hello.protocol)
        token = await self.find_token(hello.token)
        if token.role not in ("admin", "operator"):
            raise Forbidden(f"A token for {token.role} does not open this channel.", close_code=Close.FORBIDDEN)

        self.token = token
        self.connection.protocol.max_message_size = max(MAX_ADMIN_FRAME_BYTES, self._edge.limits.max_message_bytes)
        return wire.AdminWelcome(
            role="admin" if token.role == "admin" else "operator",
            label=token.label,
            server=self._edge.card,
            protocol=PROTOCOL,
        )

    async def note(self, request: Request, error: PeerError | None) -> None:
        if type(request) in NOT_LOGGED or self.token is None:
            return
        if isinstance(request, wire.AdminHello) and error is None:
            return  # a session that begins has done nothing yet

        who = f"{self.token.role}:{self.token.label or self.token.token_id}"
        if type(request) not in READ_ONLY:
            self._emit_event(request, who, error)

        try:
            async with self._database.connection() as db:
                await activity.note(
                    db, who, tag_of(type(request)), _target(request), "ok" if error is None else error.code
                )
        except Unavailable:
            log.warning("not noted in the activity log", request=tag_of(type(request)), **self.log_fields)

    def _emit_event(self, request: Request, who: str, error: PeerError | None) -> None:
        """Emit the event of a request; it is about a thing only if there is one, for viewers show that as a link."""
        core, target = self._edge.core, _target(request)
        missing = isinstance(error, NotFound | UnknownBucket)
        service = getattr(request, "service", None)
        if error is not None and isinstance(service, str) and not core.catalogue.has(service):
            service = None

        core.events.emit(
            "admin",
            f"{tag_of(type(request))}{'' if target is None else f' {target}'}"
            f" by {who}{'' if error is None else f': {error.code}'}",
            client=None if missing else getattr(request, "client_id", None),
            service=service,
            bucket=None if missing else getattr(request, "bucket_id", None),
        )


def _target(request: Request) -> str | None:
    for name in ("client_id", "bucket_id", "key", "service", "token_id", "notice_id", "node"):
        value = getattr(request, name, None)
        if isinstance(value, str):
            return value[:256]
    keys = getattr(request, "keys", None)
    return counted(len(keys), "key") if keys else None
