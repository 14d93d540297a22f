"""Times as they stand in messages: RFC 3339, in UTC.  protocol.md, "Framing" """

from __future__ import annotations

from datetime import UTC, datetime

from coordinator.errors import BadMessage


def time_text(moment: datetime) -> str:
    """Write a time as RFC 3339, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_of(text: str, path: str) -> datetime:
    """Read a time of a request; one without a zone is in UTC.

    Raises:
        BadMessage: it is no time; `path` is where it stands.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadMessage("A time is given as RFC 3339, in UTC.", detail={"path": path}) from None


def moment_or_none(text: str | None, path: str) -> datetime | None:
    """Read a time that may be left out.

    Raises:
        BadMessage: it is no time.
    """
    return None if text is None else moment_of(text, path)
