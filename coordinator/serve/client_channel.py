"""The client channel: sessions of volunteers' clients.  protocol.md, "Client channel"

Requests are answered in the order in which they come, except submits of different buckets: several may wait for their
commit at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from coordinator.errors import (
    BadMessage,
    BadResult,
    Draining,
    Internal,
    NotRegistered,
    NoWork,
    PeerError,
    RateLimited,
    ServerUnavailable,
    UnassignedItems,
    Unavailable,
    UnknownBucket,
)
from coordinator.flow.asks import Asks
from coordinator.flow.catalogue import membership_of
from coordinator.flow.core import RETRY_AFTER_DRAIN
from coordinator.flow.grant import Grant
from coordinator.flow.intake import Intake
from coordinator.flow.membership import Memberships
from coordinator.flow.notices import Notices
from coordinator.flow.personal_data import PersonalData
from coordinator.flow.release import Releases, refuse_repeated
from coordinator.flow.session_registry import Identity
from coordinator.model import Claimed, ClientId, SessionId
from coordinator.serve.channel import (
    RETRY_AFTER_UNAVAILABLE,
    ChannelSession,
    Edge,
    Step,
    other_version,
)
from coordinator.serve.connection import TimestampedConnection, ref_of
from coordinator.serve.costs import ASK_IN_VAIN, REFUSED_SUBMIT, SUBMIT_IN_VAIN, SessionAccount
from coordinator.serve.limits import MAX_REFUSALS_IN_A_ROW
from coordinator.store import claims
from coordinator.wire import client as wire
from coordinator.wire.codec import Codec
from coordinator.wire.frames import PROTOCOL, Answer, Close, Request
from coordinator.wire.session import NEEDS_REGISTRATION, Life, SessionEvent

log = structlog.get_logger()

CODEC: Codec[Request] = Codec(*wire.ANSWERS, deep=wire.Submit)

WAITS_FOR_SUBMITS: frozenset[type[Request]] = frozenset(
    {wire.Unregister, wire.Leave, wire.Activate, wire.Release, wire.Recollect}
)
"""Requests that may free or regrant buckets: they wait for the submits that came before them."""

NEEDS_ITS_PEER: frozenset[type[Request]] = frozenset({wire.Services, wire.Ask, wire.MeExport})
"""Requests that are of use to nobody once the session has ended; what it submitted before counts all the same."""

MAX_CONCURRENT_SUBMITS = 32
"""Submits of one session that may wait for their commit at once; no further frame is read until one is done."""


@dataclass(frozen=True, slots=True)
class ClientDependencies:
    """The parts that a client's session uses."""

    grant: Grant
    asks: Asks
    intake: Intake
    releases: Releases
    memberships: Memberships
    notices: Notices
    personal_data: PersonalData


class ClientSession(ChannelSession):
    """One session of a client; the `Holder` of its buckets for the flow."""

    codec = CODEC

    identity: Identity

    def __init__(
        self, connection: TimestampedConnection, address: str, edge: Edge, dependencies: ClientDependencies
    ) -> None:
        super().__init__(connection, address, edge)

        self._grant = dependencies.grant
        self._asks = dependencies.asks
        self._intake = dependencies.intake
        self._releases = dependencies.releases
        self._memberships = dependencies.memberships
        self._notices = dependencies.notices
        self._personal_data = dependencies.personal_data
        self._life = Life()
        self.session_id = SessionId(uuid4())
        self.client_id = ClientId("")
        self.agent: str | None = None
        self.draining = False
        self.told_notices: frozenset[int] | None = None
        self._submits: dict[str, asyncio.Task[None]] = {}
        self._registrations_refused = 0
        self._account = SessionAccount(edge.costs, address)

    @property
    def welcomed(self) -> bool:
        return bool(self.client_id)

    @property
    def known(self) -> bool:
        return self.welcomed and self.identity.registered

    def needs_its_peer(self, request: Request) -> bool:
        return type(request) in NEEDS_ITS_PEER

    @property
    def log_fields(self) -> dict[str, str]:
        return {"session": str(self.session_id), "client": self.client_id, "address": self.address}

    @property
    def busy(self) -> bool:
        """Whether the session holds a bucket, or has a submit under way."""
        return bool(self._submits) or any(held.holder is self for held in self.identity.held.values())

    async def run(self) -> None:
        """Serve the session until its connection ends."""
        try:
            await self.frames()
        finally:
            # The work belongs to the node: the submits sent before the end are stored before the buckets are released.
            self._background.begin(self._finish())

    async def _finish(self) -> None:
        """Store the last submits, then release or keep the session's buckets."""
        self._life.move(SessionEvent.END)
        if not self.welcomed:
            return
        if self._submits:
            await asyncio.wait(self._submits.values())
        if self._state.crashed or self._state.failed:
            await self._releases.end_session(self, keep=False, way=claims.CRASHED)
        else:
            await self._releases.end_session(self, keep=self.draining)
        log.info("session ended", code=self.connection.close_code, **self.log_fields)

    def drain(self, reason: str) -> None:
        """Hand out no more buckets, and tell the client when to reconnect."""
        self._life.move(SessionEvent.DRAIN)
        self.draining = True
        if self.welcomed:
            self.push(wire.Drain(retry_after=RETRY_AFTER_DRAIN, reason=reason))
            self._grant.tell_drain(self)

    # One request

    async def admit(self, request: Request) -> None:
        self._account.charge(request)
        self._life.admit(type(request))
        if type(request) in NEEDS_REGISTRATION:
            if not self.identity.registered:
                raise NotRegistered("Register first.", scope="client")
            self._take_large_frames()  # another session of the client may have registered it
        if self._submits and type(request) in WAITS_FOR_SUBMITS:
            await asyncio.wait(self._submits.values())

    def wait_for_bytes(self, size: int) -> float:
        return self._account.wait_before(size) or super().wait_for_bytes(size)

    def step_for(self, request: Request) -> Step:
        return partial(ANSWERS[type(request)], self)

    @property
    def origin(self) -> dict[str, str]:
        return {"client": self.client_id} if self.welcomed else {}

    def undecodable(self, frame: str, error: PeerError) -> PeerError:
        """Return the error that answers a bad frame; for a `hello` of another version, it says so instead."""
        if self.welcomed:
            self._account.charge_refused(len(frame))
            return error

        try:
            generic = msgspec.json.decode(frame)
        except (msgspec.MsgspecError, RecursionError):
            return error

        is_hello = isinstance(generic, dict) and generic.get("type") == "hello"
        protocol = generic.get("protocol") if is_hello else None
        return other_version(protocol) if isinstance(protocol, int) and protocol != PROTOCOL else error

    # The client: hello, registration, memberships

    async def _hello(self, hello: wire.Hello) -> None:
        if hello.protocol != PROTOCOL:
            raise other_version(hello.protocol)
        if self._state.draining:
            raise Draining("This node drains.", retry_after=RETRY_AFTER_DRAIN, close_code=Close.RESTART)
        refuse_repeated(hello.holds or ())

        core = self._edge.core
        identity, counters = await self._memberships.hello(hello, self.session_id, self.address)
        self.identity, self.client_id, self.agent = identity, ClientId(hello.client_id), hello.agent
        self._account.identity = identity
        core.registry.enter(self)
        self._life.move(SessionEvent.WELCOMED)
        if identity.registered:
            self._take_large_frames()

        welcome = self._welcome(counters)
        regranted: list[Claimed] = []
        if hello.holds is not None:
            welcome.recollected, regranted = await self._recollect_at_hello(hello.holds)

        welcome.notices = self._notices.begin(self)  # nothing waits from here on, so that no push comes before it
        self.answer(welcome, ref_of(hello))
        for claimed in regranted:
            self._grant.push(claimed, self)
        if core.state.draining:  # it began meanwhile
            self.drain("the node drains")

        back = f", buckets that it got back: {len(regranted)}" if regranted else ""
        core.events.emit("connect", f"connected{back}", client=self.client_id)
        log.info("session began", agent=hello.agent, registered=identity.registered, **self.log_fields)

    def _welcome(self, counters: Mapping[str, int]) -> wire.Welcome:
        identity = self.identity
        return wire.Welcome(
            session_id=str(self.session_id),
            server=self._edge.card,
            protocol=PROTOCOL,
            registered=identity.registered,
            services=[membership_of(entry, identity) for entry in self._edge.core.catalogue.all()],
            limits=self._edge.limits,
            stats=dict(counters),
            viewers="open" if self.open_to_viewers else "token",
        )

    async def _recollect_at_hello(self, holds: Sequence[wire.Hold]) -> tuple[wire.Recollection, list[Claimed]]:
        """Regrant buckets to a client that reconnects.

        Raises:
            ServerUnavailable: the database is away; the connection ends.
        """
        try:
            return await self._releases.recollect(self, holds)
        except Unavailable:
            # No `welcome` is sent; buckets that may have been regranted are kept for the client's next try.
            raise ServerUnavailable(
                "The database cannot be reached.",
                retry_after=RETRY_AFTER_UNAVAILABLE,
                scope="server",
                close_code=Close.RESTART,
            ) from None

    async def _register(self, register: wire.Register) -> Answer:
        seconds = self._edge.addresses.registrations.take(self.address)
        if seconds:
            self._registrations_refused += 1
            close = Close.TOO_MANY if self._registrations_refused >= MAX_REFUSALS_IN_A_ROW else None
            raise RateLimited(
                "Too many registrations from this address.",
                retry_after=round(seconds, 3),
                scope="connection",
                close_code=close,
            )

        self._registrations_refused = 0
        registered = await self._memberships.register(register, self)
        self._take_large_frames()
        return registered

    def _take_large_frames(self) -> None:
        """Let a client send what `max_message_bytes` allows, now that it is one that is known."""
        self.connection.protocol.max_message_size = self._edge.limits.max_message_bytes

    async def _unregister(self, unregister: wire.Unregister) -> Answer:
        return await self._memberships.unregister(unregister, self)

    async def _services(self, request: wire.Services) -> Answer:
        return self._memberships.services(self)

    async def _join(self, join: wire.Join) -> Answer:
        return await self._memberships.join(join, self)

    async def _leave(self, leave: wire.Leave) -> Answer:
        return await self._memberships.leave(leave, self)

    async def _activate(self, activate: wire.Activate) -> Answer:
        return await self._memberships.activate(activate, self)

    async def _report(self, report: wire.Report) -> Answer:
        return await self._memberships.report(report, self)

    async def _export(self, export: wire.MeExport) -> Answer:
        rows, following = await self._personal_data.page(self.client_id, export.after, export.limit)
        return wire.Exported(rows=rows, next=following)

    # Work

    async def _ask(self, ask: wire.Ask) -> None:
        try:
            outcome = await self._asks.ask(ask, self)
        except NoWork:
            self._account.charge_vain(wire.Ask, ASK_IN_VAIN)
            raise
        if outcome.answer.waiting is not None:
            self._account.charge_vain(wire.Ask, ASK_IN_VAIN)
        self.answer(outcome.answer, ref_of(ask))  # before the pushes: those of a dispatcher follow when its task runs
        for claimed in outcome.at_hand:
            self._grant.push(claimed, self)

    async def _begin_submit(self, submit: wire.Submit) -> None:
        """Begin a submit; its task answers it after the commit, while submits of other buckets may go on."""
        if bytes(submit.results)[:1] != b"[":
            raise BadMessage("`results` is an array.", detail={"path": "$.results"})

        bucket = submit.bucket_id.lower()
        under_way = self._submits.get(bucket)
        if under_way is not None:
            await asyncio.wait([under_way])
        if len(self._submits) >= MAX_CONCURRENT_SUBMITS:
            await asyncio.wait(self._submits.values(), return_when=asyncio.FIRST_COMPLETED)

        task = asyncio.get_running_loop().create_task(self.conclude(submit, self._submit))
        self._submits[bucket] = task
        task.add_done_callback(partial(self._submit_done, bucket))

    def _submit_done(self, bucket: str, task: asyncio.Task[None]) -> None:
        if self._submits.get(bucket) is task:
            del self._submits[bucket]

    async def _submit(self, submit: wire.Submit) -> Answer:
        begun = monotonic()
        try:
            stored = await self._intake.submit(submit, self)
        except (Internal, ServerUnavailable):
            raise  # what the server, or a plugin, could not do is not the client's fault
        except PeerError as refusal:
            self._account.charge_vain(wire.Submit, REFUSED_SUBMIT)
            if isinstance(refusal, BadMessage | BadResult | UnassignedItems | UnknownBucket):
                self._account.charge_refused(len(bytes(submit.results)))
            raise

        if not stored.stored:
            self._account.charge_vain(wire.Submit, SUBMIT_IN_VAIN)
        log.debug("stored", bucket=submit.bucket_id, seconds=round(monotonic() - begun, 4), **self.log_fields)
        return stored

    async def _release(self, release: wire.Release) -> Answer:
        return await self._releases.give_back(release, self)

    async def _recollect(self, recollect: wire.Recollect) -> None:
        refuse_repeated(recollect.holds or ())
        if self.draining:
            raise Draining("This node drains.", retry_after=RETRY_AFTER_DRAIN, scope="server")

        recollection, regranted = await self._releases.recollect(self, recollect.holds or [])
        answer = wire.Recollected(regranted=recollection.regranted, dropped=recollection.dropped)
        self.answer(answer, ref_of(recollect))
        for claimed in regranted:
            self._grant.push(claimed, self)


ANSWERS: Mapping[type[Request], Callable[[ClientSession, Any], Awaitable[Answer | None]]] = {
    wire.Hello: ClientSession._hello,
    wire.Register: ClientSession._register,
    wire.Unregister: ClientSession._unregister,
    wire.Services: ClientSession._services,
    wire.Join: ClientSession._join,
    wire.Leave: ClientSession._leave,
    wire.Activate: ClientSession._activate,
    wire.Ask: ClientSession._ask,
    wire.Submit: ClientSession._begin_submit,
    wire.Release: ClientSession._release,
    wire.Recollect: ClientSession._recollect,
    wire.Report: ClientSession._report,
    wire.MeExport: ClientSession._export,
}
"""The client channel: the function that answers each request."""
assert ANSWERS.keys() == wire.ANSWERS.keys()
