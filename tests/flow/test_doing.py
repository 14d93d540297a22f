"""Telling what a client does from the facts about its services."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coordinator.flow.doing import DoingFacts, doing
from coordinator.model import Wait

AT = datetime(2026, 1, 31, 18, 5, tzinfo=UTC)


def facts(
    held: int = 0,
    *,
    report: str | None = None,
    backing_off: datetime | None = None,
    streak: int = 0,
    wait: Wait | None = None,
) -> DoingFacts:
    """The facts about a client in dm_check."""
    return DoingFacts("dm_check", held, report, AT if report else None, streak, backing_off, wait)


@pytest.mark.parametrize(
    ("found", "what", "text", "until"),
    [
        ([], "idle", "it is connected and asks for nothing", None),
        ([facts()], "idle", "it is connected and asks for nothing", None),
        ([facts(1)], "working", "it holds 1 bucket", None),
        ([facts(1), facts(2)], "working", "it holds 3 buckets", None),
        ([facts(report="upstream_limited")], "limited", "its API takes no more requests for dm_check", AT),
        ([facts(3, report="upstream_limited")], "limited", "its API takes no more requests for dm_check", AT),
        ([facts(report="cannot_work")], "unable", "it reported that it cannot work for dm_check", AT),
        ([facts(backing_off=AT, streak=4)], "backing_off", "it gave back 4 buckets in a row", AT),
        ([facts(wait=Wait("backing_off", "its neighbours", AT))], "backing_off", "its neighbours", AT),
        ([facts(wait=Wait("no_items", "nothing to do"))], "waiting", "nothing to do", None),
        ([facts(wait=Wait("no_items", "nothing to do")), facts(report="upstream_limited"), facts(2)], "working",
         "it holds 2 buckets", None),
    ],
)  # fmt: skip
def test_what_a_connected_client_does(found: list[DoingFacts], what: str, text: str, until: datetime | None) -> None:
    told = doing(found, connected=True, last_access=AT)
    assert (told.what, told.text, told.since) == (what, text, None)
    assert told.until == (None if until is None else "2026-01-31T18:05:00Z")


def test_a_client_without_a_session_is_offline_whatever_it_asked_for() -> None:
    told = doing([facts(wait=Wait("no_items", "nothing to do"))], connected=False, last_access=AT)
    assert (told.what, told.since, told.until) == ("offline", "2026-01-31T18:05:00Z", None)
    assert doing([], connected=False, last_access=None).since is None
