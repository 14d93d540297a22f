"""The admin channel: requests of operators, one after the other, each noted in the activity log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from coordinator import credentials
from coordinator.errors import (
    CoordinatorError,
    Forbidden,
    Internal,
    OutOfOrder,
    PeerError,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from coordinator.flow.item_operation import ItemOperation
from coordinator.flow.operation import Operation
from coordinator.flow.service_life import ServiceLife
from coordinator.flow.undo import Undo
from coordinator.observe.capacity import CARRIES
from coordinator.observe.events import Events
from coordinator.serve.client_channel import in_words
from coordinator.serve.connection import ChannelSession, Spawn, TimestampedConnection, ref_of
from coordinator.store import activity, tokens
from coordinator.store.pool import Database
from coordinator.wire import admin as wire
from coordinator.wire.client import Limits
from coordinator.wire.codec import Codec, Undecodable, tag_of
from coordinator.wire.frames import PROTOCOL, Close, Ref, Request, ServerCard

log = structlog.get_logger()

CODEC: Codec[Request] = Codec(*wire.REQUESTS)

LARGEST = 16 * 1024 * 1024
"""Bytes of a frame from an admin: `item.add` takes thousands of items at once."""

QUIET: frozenset[type[Request]] = frozenset({wire.Stats, wire.LimitsShow, wire.Health})
"""Asked again and again by live views; not noted in the activity log."""

LOOKS: frozenset[type[Request]] = frozenset(
    one for one in wire.REQUESTS if tag_of(one).endswith((".list", ".show", ".waiting", ".quarantined", ".export"))
)
"""Changes nothing, so it is no event; QUIET ones are not either."""

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AdminDependencies:
    """What an admin session works with."""

    database: Database
    operation: Operation
    item_operation: ItemOperation
    service_life: ServiceLife
    undo: Undo
    limits: Limits
    card: ServerCard
    hello_timeout: float
    messages_per_minute: int
    spawn: Spawn
    health: Callable[[], Awaitable[Fields]]
    events: Events


class AdminSession(ChannelSession):
    """One session of one admin or operator."""

    def __init__(self, connection: TimestampedConnection, address: str, steps: AdminDependencies) -> None:
        super().__init__(connection, address, steps.messages_per_minute, steps.hello_timeout, steps.spawn)
        self._steps = steps
        self._token: tokens.Token | None = None
        operation, on_items, life = steps.operation, steps.item_operation, steps.service_life
        self._answers: dict[type[Request], Callable[[Any], Awaitable[Fields]]] = {
            wire.ServiceList: operation.service_list,
            wire.ServiceShow: operation.service_show,
            wire.ServiceAdd: life.add,
            wire.ServiceConfigure: life.configure,
            wire.ServicePause: life.pause,
            wire.ServiceResume: life.resume,
            wire.ServiceRevoke: life.revoke,
            wire.ServiceRestore: life.restore,
            wire.ItemAdd: on_items.item_add,
            wire.ItemPrioritize: on_items.item_prioritize,
            wire.ItemDelete: on_items.item_delete,
            wire.ItemWaiting: on_items.item_waiting,
            wire.ItemShow: on_items.item_show,
            wire.ItemQuarantined: on_items.item_quarantined,
            wire.ItemRetry: on_items.item_retry,
            wire.BucketList: operation.bucket_list,
            wire.BucketShow: operation.bucket_show,
            wire.BucketRelease: operation.bucket_release,
            wire.ResultList: operation.result_list,
            wire.ResultExport: operation.result_export,
            wire.ResultInvalidate: steps.undo.invalidate,
            wire.ResultReinstate: steps.undo.reinstate,
            wire.ClientList: operation.client_list,
            wire.ClientShow: operation.client_show,
            wire.ClientDeactivate: operation.client_deactivate,
            wire.ClientActivate: operation.client_activate,
            wire.ClientForgetSecret: operation.client_forget_secret,
            wire.TokenIssue: operation.token_issue,
            wire.TokenList: operation.token_list,
            wire.TokenRevoke: operation.token_revoke,
            wire.ActivityList: operation.activity_list,
            wire.NodeList: operation.node_list,
            wire.NodeDrain: operation.node_drain,
            wire.Stats: operation.stats,
            wire.LimitsShow: self._limits,
            wire.Health: self._health,
        }

    async def run(self) -> None:
        """The whole life of the session."""
        await self.frames()

    @property
    def welcomed(self) -> bool:
        return self._token is not None

    @property
    def log_fields(self) -> dict[str, str]:
        return {"address": self.address, **({} if self._token is None else {"token": self._token.token_id})}

    @property
    def token_id(self) -> str | None:
        """The token that this session lives by."""
        return None if self._token is None else self._token.token_id

    async def take(self, frame: str) -> None:
        try:
            request = CODEC.decode(frame)
        except Undecodable as refusal:
            self.refuse(refusal.error, refusal.ref)
            return
        ref = ref_of(request)
        try:
            if isinstance(request, wire.AdminHello):
                await self._hello(request, ref)
                return
            if self._token is None:
                raise OutOfOrder("The first message is hello.")
            if self._token.role != "admin" and type(request) in wire.ADMIN_ONLY:
                raise Forbidden(f"{tag_of(type(request))} needs an admin's token.")
            fields = await self._answers[type(request)](request)
        except CoordinatorError as failure:
            error = in_words(failure, **self.log_fields)
            log.info("admin refused", request=tag_of(type(request)), code=error.code, **self.log_fields)
            await self._note(request, error)
            self.refuse(error, ref)
        except Exception:
            # The edge of the connection: a fault of ours is answered and logged, and nobody else notices.
            self._steps.events.emit("fault", f"{tag_of(type(request))} could not be answered")
            log.exception("admin step failed", request=tag_of(type(request)), **self.log_fields)
            fault = Internal("Something went wrong here.")
            await self._note(request, fault)
            self.refuse(fault, ref)
        else:
            await self._note(request, None)
            self._ok(fields, ref)

    def _ok(self, fields: Fields, ref: Ref | None) -> None:
        answer: Fields = {"type": "ok", **fields}
        if ref is not None:
            answer["ref"] = ref
        self.push(msgspec.json.encode(answer))

    async def _hello(self, hello: wire.AdminHello, ref: Ref | None) -> None:
        if self._token is not None:
            raise OutOfOrder("hello is the first message, and comes once.")
        if hello.protocol != PROTOCOL:
            raise Unsupported(
                f"This server speaks version {PROTOCOL}.", detail={"path": "$.protocol"}, close_code=Close.VERSION
            )
        async with self._steps.database.connection() as db:
            token = await tokens.find(db, credentials.hash_token(hello.token))
        if token is None:
            raise Unauthorized("That token is not good.", close_code=Close.BAD_CREDENTIALS)
        if token.role not in ("admin", "operator"):
            raise Forbidden(f"A token for {token.role} does not open this channel.", close_code=Close.FORBIDDEN)
        self._token = token
        self.connection.protocol.max_message_size = max(LARGEST, self._steps.limits.max_message_bytes)
        welcome = wire.AdminWelcome(
            role="admin" if token.role == "admin" else "operator",
            label=token.label,
            server=self._steps.card,
            protocol=PROTOCOL,
        )
        self.answer(welcome, ref)

    async def _limits(self, request: wire.LimitsShow) -> Fields:
        return {"limits": self._steps.limits, "carries": CARRIES}

    async def _health(self, request: wire.Health) -> Fields:
        return await self._steps.health()

    async def _note(self, request: Request, error: PeerError | None) -> None:
        if type(request) in QUIET or self._token is None:
            return
        who = f"{self._token.role}:{self._token.label or self._token.token_id}"
        if type(request) not in LOOKS:
            self._tell(request, who, error)
        try:
            async with self._steps.database.connection() as db:
                await activity.note(
                    db, who, tag_of(type(request)), _target(request), "ok" if error is None else error.code
                )
        except Unavailable:
            log.warning("not noted in the activity log", request=tag_of(type(request)), **self.log_fields)

    def _tell(self, request: Request, who: str, error: PeerError | None) -> None:
        target = _target(request)
        self._steps.events.emit(
            "admin",
            f"{tag_of(type(request))}{'' if target is None else f' {target}'}"
            f" by {who}{'' if error is None else f': {error.code}'}",
            client=getattr(request, "client_id", None),
            service=getattr(request, "service", None),
            bucket=getattr(request, "bucket_id", None),
        )


def _target(request: Request) -> str | None:
    for name in ("client_id", "bucket_id", "key", "service", "token_id", "node"):
        value = getattr(request, name, None)
        if isinstance(value, str):
            return value[:256]
    keys = getattr(request, "keys", None)
    return f"{len(keys)} keys" if keys else None
