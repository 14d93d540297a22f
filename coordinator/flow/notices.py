"""Tells clients what the operator has to say.  protocol.md, "notice" """

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from msgspec import UNSET, structs

from coordinator.flow.core import Core
from coordinator.flow.session_registry import Holder
from coordinator.model import ClientId
from coordinator.store import notices as store
from coordinator.store.notices import StoredNotice
from coordinator.wire.client import Notice
from coordinator.wire.notices import NoticeInForce
from coordinator.wire.paging import time_text


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message in force; `ends_at` in seconds of the loop's clock, None: when it is withdrawn."""

    notice: StoredNotice
    ends_at: float | None

    def is_over(self, now: float) -> bool:
        return self.ends_at is not None and self.ends_at <= now


class Notices:
    """Knows the messages in force, which are few, and tells each session of this node those that are meant for it."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._registry = core.registry
        self._broad: dict[int, _Kept] = {}
        """Those for more than one client, by number."""
        self._personal: dict[ClientId, dict[int, _Kept]] = {}
        self._reading = asyncio.Lock()
        """One read at a time: what was read earlier must not be noted later."""

    async def load(self) -> None:
        """Read all messages in force, and tell the sessions those that they have not been told.

        Raises:
            Unavailable
        """
        async with self._reading:
            async with self._database.connection() as db:
                found = await store.in_force(db)
            self._broad.clear()
            self._personal.clear()
            for notice in found:
                self._keep(notice)
        self._tell_all()

    async def refresh(self, number: int) -> None:
        """Read one message again, which was sent or withdrawn, and tell it to those it is meant for.

        Raises:
            Unavailable
        """
        async with self._reading:
            async with self._database.connection() as db:
                notice = await store.find(db, number)
            self._drop(number)
            if notice is not None:
                self._keep(notice)

        if notice is not None and notice.client_id is not None:
            self.tell_client(notice.client_id)
        elif notice is not None:
            self._tell_all()

    def begin(self, holder: Holder) -> list[NoticeInForce]:
        """Return what a session is told in its `welcome`; from then on pushes tell it the rest."""
        holder.told_notices = frozenset()
        return self._untold(holder)

    def tell_client(self, client: ClientId) -> None:
        """Push to all sessions of a client what they have not been told: its memberships may have changed."""
        for identity in self._registry.identities(client):
            for holder in list(identity.sessions.values()):
                self._tell(holder)

    def _tell_all(self) -> None:
        for holder in list(self._registry.sessions.values()):
            self._tell(holder)

    def _tell(self, holder: Holder) -> None:
        for notice in self._untold(holder):
            holder.push(Notice(**structs.asdict(notice)))

    def _untold(self, holder: Holder) -> list[NoticeInForce]:
        """Return what a session is to be told, oldest first, and note that it is; nothing before its `welcome`."""
        told = holder.told_notices
        if told is None:
            return []
        meant = self._meant_for(holder)
        holder.told_notices = frozenset(notice.notice_id for notice in meant)
        return [_as_told(notice) for notice in meant if notice.notice_id not in told]

    def _meant_for(self, holder: Holder) -> list[StoredNotice]:
        identity = holder.identity
        personal = self._personal.get(holder.client_id, {}) if identity.registered else {}
        now = asyncio.get_running_loop().time()
        joined = {service for service, membership in identity.memberships.items() if membership.joined}
        meant = [
            kept.notice
            for kept in (*self._broad.values(), *personal.values())
            if not kept.is_over(now) and (kept.notice.service_id is None or kept.notice.service_id in joined)
        ]
        return sorted(meant, key=lambda notice: notice.notice_id)

    def _keep(self, notice: StoredNotice) -> None:
        now = asyncio.get_running_loop().time()
        group = self._broad if notice.client_id is None else self._personal.setdefault(notice.client_id, {})
        group[notice.notice_id] = _Kept(notice, None if notice.seconds is None else now + notice.seconds)

    def _drop(self, number: int) -> None:
        """Forget a message, and those that are over."""
        now = asyncio.get_running_loop().time()
        for group in (self._broad, *self._personal.values()):
            for over in [other for other, kept in group.items() if other == number or kept.is_over(now)]:
                del group[over]
        self._personal = {client: group for client, group in self._personal.items() if group}


def _as_told(notice: StoredNotice) -> NoticeInForce:
    return NoticeInForce(
        notice_id=str(notice.notice_id),
        at=time_text(notice.at),
        level=notice.level,
        text=notice.text,
        service=UNSET if notice.service is None else notice.service,
        until=UNSET if notice.until is None else time_text(notice.until),
    )
