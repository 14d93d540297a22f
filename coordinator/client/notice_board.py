"""The messages of the server's operator: each is logged once, and kept while it is in force."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import UnsetType

from coordinator.wire.notices import NoticeInForce

log = logging.getLogger("coordinator.client")

MOST_NOTICES = 1000
"""Messages that are kept, the newest: a server that says more in one session is not heeded."""

_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class NoticeBoard:
    """The operator's messages that are in force, as far as this client was told."""

    def __init__(self) -> None:
        self._notices: dict[str, NoticeInForce] = {}

    def in_force(self) -> list[NoticeInForce]:
        """Return the messages that have not ended by the clock of this machine, in the order in which they came."""
        return [notice for notice in self._notices.values() if not _is_over(notice)]

    def replace(self, notices: Sequence[NoticeInForce]) -> None:
        """Take those of a `welcome` for all there are, and log those that are new."""
        known, self._notices = self._notices, {}
        for notice in notices[-MOST_NOTICES:]:
            self._notices[notice.notice_id] = notice
            if notice.notice_id not in known:
                _show(notice)

    def add(self, notice: NoticeInForce) -> None:
        """Keep and log one that was pushed."""
        is_new = notice.notice_id not in self._notices
        self._notices[notice.notice_id] = notice
        if len(self._notices) > MOST_NOTICES:
            del self._notices[next(iter(self._notices))]
        if is_new:
            _show(notice)


def _show(notice: NoticeInForce) -> None:
    """Log a message, each of its lines as one: so none can pass for a line of somebody else."""
    about = "" if isinstance(notice.service, UnsetType) else f" of {notice.service}"
    for line in notice.text.splitlines():
        log.log(_LEVELS[notice.level], "the operator%s says: %s", about, line)


def _is_over(notice: NoticeInForce) -> bool:
    if isinstance(notice.until, UnsetType):
        return False
    try:
        return datetime.fromisoformat(notice.until) <= datetime.now(UTC)
    except (ValueError, TypeError):  # no time, or one without a zone
        return False
