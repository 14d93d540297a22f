"""The rules of health: what each sign brings, and that clients which are alike are never told apart."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.model import Health, ServiceSettings
from coordinator.observe import health
from coordinator.observe.health import OK, Comparison, ResultHour, Verdict, WorkRecord, judge, limits, patience

FLAGGED = Verdict("flagged", "why")
COUNTS = [one.name for one in fields(WorkRecord) if one.name not in ("seconds",)]


def state(record: WorkRecord, others: Comparison = Comparison()) -> Health:  # noqa: B008 - frozen
    return judge(record, others, OK).state


@pytest.mark.parametrize(
    ("sign", "watched", "flagged", "word"),
    [
        ("died", 1, 3, "dead buckets above zero"),
        ("asked_on", None, 1, "asks on while older ones die"),
        ("hoarded", 2, 4, "asks faster than it settles"),
        ("refused", 3, 5, "errors in a row"),
        ("returned", 3, 4, "claims without submitting"),
    ],
)
def test_each_sign_is_watched_and_flagged_from_its_count_on(
    sign: str, watched: int | None, flagged: int, word: str
) -> None:
    for count in range(flagged + 3):
        found = judge(replace(WorkRecord(), **{sign: count}), Comparison(), OK)
        expected = "flagged" if count >= flagged else "watched" if watched and count >= watched else "ok"
        assert found.state == expected, (sign, count)
        assert (found.reason is None) == (expected == "ok")
        if found.reason is not None:
            assert word in found.reason
            assert str(count) in found.reason


def test_who_has_done_nothing_is_ok() -> None:
    assert judge(WorkRecord(), Comparison(), OK) == OK


def test_it_gets_better_only_after_some_good_buckets() -> None:
    for well in range(health.GOOD_BUCKETS_TO_RECOVER):
        assert judge(WorkRecord(well=well), Comparison(), FLAGGED) == FLAGGED
    assert judge(WorkRecord(well=health.GOOD_BUCKETS_TO_RECOVER), Comparison(), FLAGGED) == OK


def test_good_buckets_do_not_help_while_the_sign_is_there() -> None:
    assert judge(WorkRecord(well=health.GOOD_BUCKETS_TO_RECOVER, refused=5), Comparison(), FLAGGED) == FLAGGED


def test_a_flagged_client_may_hold_one() -> None:
    assert limits("flagged", ServiceSettings()) == (1, 1)
    assert limits("watched", ServiceSettings()) == limits("ok", ServiceSettings()) == (10, 20)


def test_patience_goes_with_the_service() -> None:
    assert (patience(7200), patience(1)) == (72, 1)


records = st.builds(
    WorkRecord,
    **{name: st.integers(0, 10) for name in COUNTS if name != "paced"},
    seconds=st.floats(0, 1e6, allow_nan=False),
    paced=st.integers(0, 4000),
)
verdicts = st.sampled_from([OK, Verdict("watched", "why"), FLAGGED])


@given(records, verdicts, st.lists(st.floats(1e-6, 1e4), max_size=20))
def test_the_verdict_is_whole_and_stays_until_something_changes(
    record: WorkRecord, before: Verdict, paces: list[float]
) -> None:
    others = Comparison(paces)
    found = judge(record, others, before)
    assert (found.state == "ok") == (found.reason is None)
    assert judge(record, others, found) == found
    if record.well < health.GOOD_BUCKETS_TO_RECOVER:
        assert not health.worse(before, found)


@given(records, verdicts, st.sampled_from(["died", "asked_on", "hoarded", "refused", "returned"]))
def test_one_fault_more_never_makes_it_better(record: WorkRecord, before: Verdict, sign: str) -> None:
    more: Any = {sign: getattr(record, sign) + 1}
    assert not health.worse(judge(record, Comparison(), before), judge(replace(record, **more), Comparison(), before))


# Too fast to be true


def test_answers_that_nobody_can_have_checked() -> None:
    fast, slow = WorkRecord(seconds=0.02, paced=200), WorkRecord(seconds=200, paced=200)
    others = Comparison([1.0] * health.MIN_PACES)
    found = judge(fast, others, OK)
    assert found.state == "flagged"
    assert found.reason == "too fast to be true: 0.1 ms an item, the median of 5 others is 1e+03 ms"
    assert state(slow, others) == "ok"
    assert state(WorkRecord(seconds=0.0, paced=health.MIN_ITEMS_FOR_PACE - 1), others) == "ok"  # too few to know
    assert state(fast, Comparison([1.0] * (health.MIN_PACES - 1))) == "ok"


def test_a_client_with_many_keys_is_fast_but_not_too_fast() -> None:
    assert state(WorkRecord(seconds=200 * 0.011, paced=200), Comparison([5.0] * 10)) == "ok"


@given(st.floats(1e-6, 1e3), st.lists(st.floats(0.2, 5.0), min_size=5, max_size=50), st.floats(0.2, 5.0))
def test_clients_that_are_alike_are_never_too_fast(usual: float, spread: list[float], own: float) -> None:
    """Within a factor of five of the usual, whatever that is: the median is at most 5 times it, so the rest is 2."""
    own = max(own, 0.5001)
    assert (
        state(WorkRecord(seconds=usual * own * 1000, paced=1000), Comparison([usual * one for one in spread])) == "ok"
    )


# Out of line


def drawn(random: Random, shares: dict[str, float], count: int) -> dict[str, int]:
    found = random.choices(list(shares), list(shares.values()), k=count)
    return {label: found.count(label) for label in set(found)}


USUAL = {"DM": 0.4, "NON_DM": 0.57, "UNKNOWN": 0.03}


def test_a_client_that_always_says_the_same() -> None:
    others = [{"DM": 160, "NON_DM": 228, "UNKNOWN": 12}] * 3
    found = judge(WorkRecord(), Comparison(hours=[ResultHour({"NON_DM": 200}, others)]), OK)
    assert found.state == "flagged"
    assert found.reason == "results out of line with the others: 0% DM in 200 results, the others 40%"
    assert state(WorkRecord(), Comparison(hours=[ResultHour({"NON_DM": 199}, others)])) == "ok"
    assert state(WorkRecord(), Comparison(hours=[ResultHour({"NON_DM": 200}, others[:2])])) == "ok"
    assert state(WorkRecord(), Comparison(hours=[ResultHour({"NON_DM": 200}, [{"DM": 80, "NON_DM": 119}] * 9)])) == "ok"


def test_a_kind_that_nobody_else_has() -> None:
    others = [{"some": 300}] * 3
    assert state(WorkRecord(), Comparison(hours=[ResultHour({"missing": 200}, others)])) == "flagged"
    assert state(WorkRecord(), Comparison(hours=[ResultHour({"some": 200}, others)])) == "ok"


def test_of_four_clients_only_the_wrong_one_is_flagged() -> None:
    random = Random(2)
    all_of_them = [drawn(random, USUAL, 500) for _ in range(3)] + [{"UNKNOWN": 500}]
    states = [
        state(WorkRecord(), Comparison(hours=[ResultHour(own, [one for one in all_of_them if one is not own])]))
        for own in all_of_them
    ]
    assert states == ["ok", "ok", "ok", "flagged"]


def test_what_changes_with_the_hour_is_nobodys_fault() -> None:
    """A client that worked only while other accounts were checked than now: pooled, it would stand out."""
    random = Random(3)
    early, late = {"DM": 0.9, "NON_DM": 0.1}, {"DM": 0.1, "NON_DM": 0.9}
    own = ResultHour(drawn(random, early, 400), [drawn(random, early, 300) for _ in range(5)])
    assert (
        state(WorkRecord(), Comparison(hours=[own, ResultHour({}, [drawn(random, late, 3000) for _ in range(5)])]))
        == "ok"
    )


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3, 12), st.floats(0.0, 1.0), st.integers(1, 6))
@pytest.mark.long
def test_clients_that_are_alike_are_never_out_of_line(random: Random, others: int, share: float, hours: int) -> None:
    mixes = [{"a": share, "b": 1 - share}, {"a": 1 - share, "b": share}]
    chosen = [mixes[n % 2] for n in range(hours)]
    told = [
        ResultHour(drawn(random, mix, 200), [drawn(random, mix, random.randint(200, 600)) for _ in range(others)])
        for mix in chosen
    ]
    assert state(WorkRecord(), Comparison(hours=told)) == "ok"


def test_the_error_that_is_stated() -> None:
    """Beyond so many standard errors lie fewer than 1 of 10 million looks, both ways."""
    assert math.erfc(health.MIN_STANDARD_ERRORS / math.sqrt(2)) < 1e-7
    assert math.sqrt(0.25 / health.MIN_RESULTS_FOR_SHARES) < 0.036
