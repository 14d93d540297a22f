"""Reasons for waiting: which one holds and which one is told, fact by fact."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from coordinator.flow.wait_reasons import reasons, wait_of_client
from coordinator.model import ClientId, Service, ServiceId, ServiceSettings, WaitReason
from coordinator.store.waits import WaitFacts

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SOON, LATER = NOW + timedelta(seconds=5), NOW + timedelta(seconds=50)

SERVED = WaitFacts(
    client_id=ClientId("ada"),
    at=NOW,
    works=True,
    reported_until=None,
    backing_off_until=None,
    given_back=0,
    held=1,
    most=20,
    most_now=2,
    crowded=False,
    returned=False,
    returned_until=None,
    ready=True,
    queued=False,
    split_at=None,
)
"""A client for which something is ready."""


def service(state: Any = "active", **settings: Any) -> Service:
    return Service(ServiceId(1), "dm_check", "dm_check", "DM check", state, ServiceSettings(**settings))


@pytest.mark.parametrize(
    ("facts", "reason", "until", "words"),
    [
        ({}, None, None, ""),
        ({"queued": True, "split_at": SOON, "returned": True}, None, None, ""),
        ({"works": False}, "deactivated", None, "inactive"),
        ({"reported_until": SOON}, "reported", SOON, "reported"),
        ({"reported_until": SOON, "backing_off_until": LATER}, "reported", SOON, "reported"),
        ({"backing_off_until": LATER, "given_back": 4}, "backing_off", LATER, "it gave back 4 buckets in a row"),
        ({"backing_off_until": LATER}, "backing_off", LATER, "the newcomers of its address"),
        ({"held": 20, "most_now": 20}, "at_limit", None, "it holds 20 buckets, as many as it may"),
        ({"held": 1, "most": 1, "most_now": 1}, "at_limit", None, "it holds 1 bucket, as many as it may"),
        ({"all_out": True}, "budget", None, "hold 7 buckets, as many as they may"),
        ({"budget_until": SOON, "held": 2}, "budget", SOON, "no more than 500 items a minute"),
        ({"held": 2}, "newcomer", None, "until it has settled more"),
        ({"crowded": True}, "newcomer", None, "together"),
        ({"returned": True, "returned_until": SOON}, "returned_all", SOON, "gave back lately"),
        ({"ready": False, "queued": True}, "making", None, "being made"),
        ({"ready": False, "queued": True, "split_at": SOON}, "making", None, "being made"),
        ({"ready": False, "split_at": SOON}, "making", SOON, "being made"),
        ({"ready": False}, "no_items", None, "nothing to do"),
    ],
)
def test_a_fact_gives_its_reason(facts: dict[str, Any], reason: str | None, until: datetime | None, words: str) -> None:
    wait = wait_of_client(service(items_per_minute=500, max_claimed_buckets=7), replace(SERVED, **facts))
    assert (None if wait is None else wait.reason) == reason
    if wait is not None:
        assert wait.until == until
        assert words in wait.text


def test_of_several_the_first_of_the_list_is_told() -> None:
    all_of_them = replace(
        SERVED,
        works=False,
        reported_until=SOON,
        backing_off_until=SOON,
        held=20,
        returned_until=SOON,
        ready=False,
        all_out=True,
    )
    paused = service("paused", agents_only=True)
    found = [wait.reason for wait in reasons(paused, all_of_them, draining=True)]
    assert found == [reason for reason in get_args(WaitReason) if reason != "making"]
    found = [wait.reason for wait in reasons(paused, replace(all_of_them, queued=True), draining=True)]
    assert found == [reason for reason in get_args(WaitReason) if reason != "no_items"]


def test_the_protocol_has_the_same_list() -> None:
    text = (Path(__file__).parents[2] / "protocol.md").read_text()
    table = text.partition("| reason | holds while | `until` |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(get_args(WaitReason))
