"""The requests `notice.…`: send, list, withdraw.  protocol.md, "notice.send" """

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

from coordinator.admin import Steps
from coordinator.errors import BadMessage, NotFound, Quota
from coordinator.flow.core import Core
from coordinator.flow.signal_types import NoticeChanged
from coordinator.model import ClientId
from coordinator.stats.rows import filled
from coordinator.store import clients
from coordinator.store import notices as store
from coordinator.wire.admin import notices as wire
from coordinator.wire.paging import moment_or_none, number

_UNPRINTED = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Categories of characters that move the cursor, turn the direction of writing or are not seen."""


class NoticeRequests:
    """Carries out the requests `notice.…`."""

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._signals = core.signals

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.NoticeSend: self.send,
            wire.NoticeList: self.list,
            wire.NoticeWithdraw: self.withdraw,
        }

    async def send(self, request: wire.NoticeSend) -> wire.NoticeSent:
        """Send a message to a client, to the members of a service, or to all.

        Raises:
            BadMessage: the text has other characters than those that are read, or `until` is no later time.
            NotFound: there is no such client or service.
            Quota: too many are in force.
        """
        text = _plain(request.text)
        until = moment_or_none(request.until, "$.until")
        if until is not None and until <= datetime.now(UTC):
            raise BadMessage("until: a time that is still to come was expected.", detail={"path": "$.until"})
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        client = None if request.client_id is None else ClientId(request.client_id)

        async with self._database.transaction() as db:
            if client is not None and await clients.find(db, client) is None:
                raise NotFound(f"There is no client {client!r}.")
            sent = await store.send(db, text, request.level, client, service, until)
        if sent is None:
            raise Quota(
                f"At most {store.MAX_IN_FORCE:,} messages are in force, and {store.MAX_FOR_ONE_ADDRESSEE} for one "
                "client, for one service, or for all: withdraw some."
            )
        self._signals.tell(NoticeChanged(sent))
        return wire.NoticeSent(notice_id=str(sent))

    async def list(self, request: wire.NoticeList) -> wire.NoticePage:
        """List the messages in force, oldest first.

        Raises:
            BadMessage: `after` is none.
        """
        after = 0 if request.after is None else number(request.after)
        async with self._database.connection() as db:
            found = await store.page(db, after, request.limit)
        rows = [filled(wire.ListedNotice, notice, notice_id=str(notice.notice_id)) for notice in found]
        return wire.NoticePage(rows=rows, next=rows[-1].notice_id if len(rows) == request.limit else None)

    async def withdraw(self, request: wire.NoticeWithdraw) -> wire.NoticeWithdrawn:
        """End a message.

        Raises:
            NotFound: none of that id is in force.
        """
        known = re.fullmatch(r"[0-9]{1,18}", request.notice_id)
        async with self._database.connection() as db:
            if known is None or not await store.withdraw(db, int(request.notice_id)):
                raise NotFound(f"No notice {request.notice_id!r} is in force.")
        self._signals.tell(NoticeChanged(int(request.notice_id)))
        return wire.NoticeWithdrawn(withdrawn=1)


def _plain(text: str) -> str:
    r"""Return a text with the line breaks of Unix.

    Raises:
        BadMessage: it has other control characters than line breaks, or format characters.
    """
    lines = text.replace("\r\n", "\n")
    for character in lines:
        if character != "\n" and unicodedata.category(character) in _UNPRINTED:
            name = unicodedata.name(character, "control character")
            raise BadMessage(
                f"text: U+{ord(character):04X} {name} is refused; plain text and line breaks were expected.",
                detail={"path": "$.text"},
            )
    return lines
