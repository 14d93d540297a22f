"""Requests `notice.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.model import NoticeLevel
from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Name, PageSize, Request, Time
from coordinator.wire.notices import NoticeText


class ListedNotice(Struct):
    """A message to a client, to the members of a service, or, where both are null, to all."""

    notice_id: str
    at: str
    level: NoticeLevel
    text: str
    client_id: str | None
    service: str | None
    until: str | None


class NoticeSend(Request, tag="notice.send"):
    """Send a message to a client, to the members of a service, or to all; it stays in force until it is withdrawn."""

    text: NoticeText
    level: NoticeLevel = "info"
    client_id: Name | None = None
    service: Name | None = None
    until: Time | None = None


class NoticeSent(Ok, kw_only=True):
    """The name by which the message is withdrawn."""

    notice_id: str


class NoticeList(Request, tag="notice.list"):
    """List the messages in force, oldest first."""

    limit: PageSize = 100
    after: After | None = None


class NoticePage(Ok, kw_only=True):
    """One page of messages."""

    rows: list[ListedNotice]
    next: str | None


class NoticeWithdraw(Request, tag="notice.withdraw"):
    """End a message: whoever connects from now on is not told it any more."""

    notice_id: Annotated[str, Meta(max_length=64)]


class NoticeWithdrawn(Ok, kw_only=True):
    """How many messages have ended."""

    withdrawn: int


ANSWERS: dict[type[Request], type[Answer]] = {
    NoticeSend: NoticeSent,
    NoticeList: NoticePage,
    NoticeWithdraw: NoticeWithdrawn,
}
