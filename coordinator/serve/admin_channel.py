"""The admin channel: requests of operators, one after the other, each noted in the activity log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from coordinator import credentials
from coordinator.errors import Forbidden, OutOfOrder, PeerError, Unauthorized, Unavailable
from coordinator.flow.item_operation import ItemOperation
from coordinator.flow.operation import Operation
from coordinator.flow.readiness import Readiness
from coordinator.flow.service_life import ServiceLife
from coordinator.flow.undo import Undo
from coordinator.serve.channel import ChannelSession, Edge, Step, other_version
from coordinator.serve.connection import TimestampedConnection
from coordinator.stats.capacity import MEASURED_CAPACITY
from coordinator.store import activity, tokens
from coordinator.wire import admin as wire
from coordinator.wire.codec import Codec, tag_of
from coordinator.wire.frames import PROTOCOL, Answer, Close, Ref, Request

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


class _Shapeless(Answer, tag="ok"):
    fields: Fields


@dataclass(frozen=True, slots=True)
class AdminDependencies:
    """What an admin session works with: each request and the function that answers it."""

    answers: Mapping[type[Request], Callable[[Any], Awaitable[Fields]]]


def admin_answers(
    operation: Operation, on_items: ItemOperation, life: ServiceLife, undo: Undo, edge: Edge, readiness: Readiness
) -> Mapping[type[Request], Callable[[Any], Awaitable[Fields]]]:
    """Join the requests of the admin channel with the functions that answer them."""

    async def limits(request: wire.LimitsShow) -> Fields:
        return {"limits": edge.limits, "carries": MEASURED_CAPACITY}

    async def health(request: wire.Health) -> Fields:
        return await readiness.report()

    return {
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
        wire.ResultInvalidate: undo.invalidate,
        wire.ResultReinstate: undo.reinstate,
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
        wire.LimitsShow: limits,
        wire.Health: health,
    }


class AdminSession(ChannelSession):
    """One session of one admin or operator."""

    codec = CODEC
    refusals_logged_at = logging.INFO

    def __init__(
        self, connection: TimestampedConnection, address: str, edge: Edge, dependencies: AdminDependencies
    ) -> None:
        super().__init__(connection, address, edge)
        self._database = edge.core.database
        self._token: tokens.Token | None = None
        self._answers = dependencies.answers

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

    async def admit(self, request: Request) -> None:
        if isinstance(request, wire.AdminHello):
            if self._token is not None:
                raise OutOfOrder("hello is the first message, and comes once.")
        elif self._token is None:
            raise OutOfOrder("The first message is hello.")
        elif self._token.role != "admin" and type(request) in wire.ADMIN_ONLY:
            raise Forbidden(f"{tag_of(type(request))} needs an admin's token.")

    def step_for(self, request: Request) -> Step:
        return self._hello if isinstance(request, wire.AdminHello) else self._carry_out

    async def _carry_out(self, request: Request) -> Answer:
        return _Shapeless(fields=await self._answers[type(request)](request))

    def answer(self, answer: Answer, ref: Ref | None) -> None:
        if not isinstance(answer, _Shapeless):
            super().answer(answer, ref)
            return
        fields: Fields = {"type": "ok", **answer.fields}
        if ref is not None:
            fields["ref"] = ref
        self.push(msgspec.json.encode(fields))

    async def _hello(self, hello: wire.AdminHello) -> Answer:
        if hello.protocol != PROTOCOL:
            raise other_version(hello.protocol)
        async with self._database.connection() as db:
            token = await tokens.find(db, credentials.hash_token(hello.token))
        if token is None:
            raise Unauthorized("That token is not good.", close_code=Close.BAD_CREDENTIALS)
        if token.role not in ("admin", "operator"):
            raise Forbidden(f"A token for {token.role} does not open this channel.", close_code=Close.FORBIDDEN)
        self._token = token
        self.connection.protocol.max_message_size = max(LARGEST, self._edge.limits.max_message_bytes)
        return wire.AdminWelcome(
            role="admin" if token.role == "admin" else "operator",
            label=token.label,
            server=self._edge.card,
            protocol=PROTOCOL,
        )

    async def note(self, request: Request, error: PeerError | None) -> None:
        if type(request) in QUIET or self._token is None:
            return
        if isinstance(request, wire.AdminHello) and error is None:
            return  # a session that begins has done nothing yet

        who = f"{self._token.role}:{self._token.label or self._token.token_id}"
        if type(request) not in LOOKS:
            self._tell(request, who, error)
        try:
            async with self._database.connection() as db:
                await activity.note(
                    db, who, tag_of(type(request)), _target(request), "ok" if error is None else error.code
                )
        except Unavailable:
            log.warning("not noted in the activity log", request=tag_of(type(request)), **self.log_fields)

    def _tell(self, request: Request, who: str, error: PeerError | None) -> None:
        target = _target(request)
        self._edge.core.events.emit(
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
