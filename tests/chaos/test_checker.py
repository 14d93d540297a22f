"""The checker finds what is wrong in histories that were made by hand, and nothing in good ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import RULES, Run, check
from tests.chaos.history import Began, Ended, Event, Fail, Fault, Given, History, Invoked, Lost, Ok, Recorder, Unknown
from tests.chaos.rows import BucketRow, ClaimRow, MembershipRow, ResultRow, Rows


def submit(at: float, call: str, client: str, claim: int, values: dict[int, str], **more: Any) -> Invoked:
    given: dict[str, Any] = {"bucket": "b", "final": True, **more}
    return Invoked(at, call, client, f"of {client}", "submit", claim=claim, values=values, **given)


ADA_WAS_CUT_OFF: list[Event] = [
    Began(1, "ada", "of ada"),
    Given(2, "ada", "of ada", "b", 1, [10, 11]),
    submit(3, "a1", "ada", 1, {10: "x"}, final=False),
    Ok(4, "a1", stored=1),
    submit(5, "a2", "ada", 1, {11: "y"}),
    Unknown(6, "a2", "the connection ended"),
    Ended(6, "ada", "of ada", "the connection ended"),
    Began(7, "bob", "of bob"),
    Given(8, "bob", "of bob", "b", 2, [11]),
    submit(9, "b1", "bob", 2, {11: "z"}),
    Ok(10, "b1", stored=1, closed=True),
    submit(11, "b2", "bob", 2, {11: "z"}),
    Ok(12, "b2", closed=True, duplicate=True),
    Fault(5.5, 6.0, "cut", "ada"),
]
"""One bucket of two items: its first holder settles one of them, its second the other."""

ROWS = Rows(
    results=[ResultRow(10, 1, "x"), ResultRow(11, 2, "z")],
    claims=[ClaimRow(1, "b", "ada", "of ada", 1, "cut_off"), ClaimRow(2, "b", "bob", "of bob", 1, "settled")],
    buckets=[BucketRow("b", "done", 2, None)],
    memberships=[MembershipRow("ada", settled=1, disconnects=1), MembershipRow("bob", settled=1)],
    keys=frozenset({"ten", "eleven"}),
    items=frozenset({10, 11}),
)


def broken(*more: Event, without: str = "", rows: Rows = ROWS, added: str = "ten eleven") -> set[str]:
    """The rules that are broken if these things happened too, and that answer never came."""
    events = [
        event
        for event in ADA_WAS_CUT_OFF
        if not without or isinstance(event, Invoked) or getattr(event, "call", None) != without
    ]
    history = History.of([*events, *more])
    run = Run(history, rows, frozenset({"bob"}), frozenset(added.split()))
    return {violation.rule for violation in check(run)}


def asks(session: str, *times: float) -> list[Event]:
    """Asks of a session at those times, each answered at once."""
    client = session.removeprefix("of ")
    return [
        event
        for at in times
        for event in (Invoked(at, f"{session}{at}", client, session, "ask"), Ok(at + 0.1, f"{session}{at}"))
    ]


def test_a_good_history_breaks_nothing() -> None:
    assert not broken()


def test_an_unknown_outcome_may_be_either() -> None:
    both = replace(ROWS, results=[ROWS.results[0], ResultRow(11, 1, "y")], claims=[replace(ROWS.claims[0], settled=2)])
    both = replace(both, buckets=[BucketRow("b", "done", 1, None)], memberships=[])
    alone = [event for event in ADA_WAS_CUT_OFF if "bob" not in str(event) and getattr(event, "call", "a")[0] == "a"]
    assert not check(Run(History.of(alone), both))


def test_a_holder_that_was_told_may_go_on() -> None:
    lost = Lost(8.1, "ada", "of ada", "b", 1, "released")
    assert not broken(lost, *asks("of ada", 12, 14, 17))


def test_a_node_that_stood_still_may_answer_once_more() -> None:
    assert not broken(*asks("of ada", 12, 12.5))


BUCKET = ROWS.buckets[0]
ADA, BOB = ROWS.claims

BROKEN: dict[str, tuple[list[Event], dict[str, Any]]] = {
    "one_claim_one_session": ([Given(9, "cleo", "of cleo", "b", 2, [11])], {}),
    "claims_end_before_the_next": ([], {"rows": replace(ROWS, claims=[replace(ADA, ended=None), BOB])}),
    "claim_numbers_grow": ([Began(9, "cleo", "late"), Given(9.5, "cleo", "late", "b", 0, [11])], {}),
    "one_holder_at_a_time": ([Given(0, "cleo", "of cleo", "b", 0, [11]), *asks("of cleo", 6, 10)], {}),
    "stale_claims_do_nothing": (
        [submit(9, "a3", "ada", 1, {11: "z"}), Ok(9.5, "a3", stored=1)],
        {"rows": replace(ROWS, results=[*ROWS.results, ResultRow(11, 1, "z")])},
    ),
    "acknowledged_is_stored": ([], {"rows": replace(ROWS, results=[ROWS.results[1]])}),
    "stored_once": ([], {"rows": replace(ROWS, results=[*ROWS.results, ResultRow(11, 1, "y")])}),
    "nothing_from_nowhere": ([Fail(10, "b1", "bad_result")], {"without": "b1"}),
    "repeats_are_known": ([Fail(12, "b2", "stale_claim")], {"without": "b2"}),
    "counted_once": ([], {"rows": replace(ROWS, memberships=[MembershipRow("bob", settled=2)])}),
    "innocents_are_not_blamed": ([], {"rows": replace(ROWS, memberships=[MembershipRow("bob", died=1)])}),
    "innocents_lose_nothing": ([], {"rows": replace(ROWS, claims=[ADA, replace(BOB, ended="dead")])}),
    "all_is_drained": ([], {"added": "ten eleven twelve"}),
}
"""For each rule what happened besides, or what the database has instead."""


def test_each_rule_has_its_case() -> None:
    assert BROKEN.keys() == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_what_breaks_it(rule: str) -> None:
    more, changed = BROKEN[rule]
    assert rule in broken(*more, **changed)


OTHERS: dict[str, tuple[str, list[Event], dict[str, Any]]] = {
    "another value is stored": (
        "acknowledged_is_stored", [], {"rows": replace(ROWS, results=[ResultRow(10, 1, "?"), ROWS.results[1]])},
    ),
    "a stale release counts": (
        "stale_claims_do_nothing",
        [Invoked(9, "a3", "ada", "of ada", "release", "b", 1), Ok(9.5, "a3")],
        {},
    ),
    "the bucket forgot its newest claim": (
        "claims_end_before_the_next", [], {"rows": replace(ROWS, buckets=[replace(BUCKET, claim=1)])},
    ),
    "other results are taken": (
        "repeats_are_known", [submit(13, "b3", "bob", 2, {11: "other"}), Ok(14, "b3", duplicate=True)], {},
    ),
    "results stand under the claim of another": (
        "nothing_from_nowhere", [], {"rows": replace(ROWS, claims=[ADA, replace(BOB, client="cleo")])},
    ),
    "a claim counts too many": ("counted_once", [], {"rows": replace(ROWS, claims=[ADA, replace(BOB, settled=2)])}),
    "a bucket is left": ("all_is_drained", [], {"rows": replace(ROWS, buckets=[replace(BUCKET, state="ready")])}),
    "an item is nowhere": ("all_is_drained", [], {"rows": replace(ROWS, items=frozenset({10, 11, 12}))}),
    "an innocent is flagged": (
        "innocents_are_not_blamed",
        [],
        {"rows": replace(ROWS, memberships=[MembershipRow("bob", health="flagged", health_reason="?")])},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_rules_find_the_other_ways_of_breaking_them(case: str) -> None:
    rule, more, changed = OTHERS[case]
    assert rule in broken(*more, **changed)


def test_who_asked_to_begin_before_others_had_the_bucket_may_note_it_later() -> None:
    """As one that stood still meanwhile does."""
    late: list[Event] = [Began(9, "cleo", "late", asked_at=1), Given(9.5, "cleo", "late", "b", 0, [11])]
    assert "claim_numbers_grow" not in broken(*late)


def test_events_of_several_processes_come_back_in_order(tmp_path: Path) -> None:
    first, second = Recorder(tmp_path / "first"), Recorder(tmp_path / "second")
    for number, event in enumerate(ADA_WAS_CUT_OFF):
        (first, second)[number % 2].note(event)
    assert History.read([tmp_path / "second", tmp_path / "first"]) == History.of(ADA_WAS_CUT_OFF)


def test_a_request_of_a_killed_client_has_no_end() -> None:
    (call,) = History.of([submit(1, "a1", "ada", 1, {10: "x"})]).calls
    assert call.end is None
    assert not call.refused
