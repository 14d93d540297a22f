"""The rules of health: what each sign brings, and that clients which are alike are never told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.model import OTHER_KINDS, Health, ServiceSettings
from coordinator.observe import health
from coordinator.observe.health import OK, Comparison, Labels, ResultHour, Verdict, WorkRecord, judge, limits, patience

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
    others = others_with(paces)
    found = judge(record, others, before)
    assert (found.state == "ok") == (found.reason is None)
    assert judge(record, others, found) == found
    if record.well < health.GOOD_BUCKETS_TO_RECOVER:
        assert not health.worse(before, found)


@given(records, verdicts, st.sampled_from(["died", "asked_on", "hoarded", "refused", "returned"]))
def test_one_fault_more_never_makes_it_better(record: WorkRecord, before: Verdict, sign: str) -> None:
    more: Any = {sign: getattr(record, sign) + 1}
    assert not health.worse(judge(record, Comparison(), before), judge(replace(record, **more), Comparison(), before))


def others_with(
    paces: Sequence[float] = (), hours: Sequence[tuple[Labels, Sequence[Labels]]] = (), standing: int = 1000
) -> Comparison:
    """Others of equal standing; each hour has the client's own results and those of each other."""
    count = max([len(paces), *(len(others) for _, others in hours)])
    return Comparison(
        {str(n): standing for n in range(count)},
        {str(n): pace for n, pace in enumerate(paces)},
        [ResultHour(own, {str(n): labels for n, labels in enumerate(others)}) for own, others in hours],
    )


# Too fast to be true


def test_answers_that_nobody_can_have_checked() -> None:
    fast, slow = WorkRecord(seconds=0.02, paced=200), WorkRecord(seconds=200, paced=200)
    others = others_with([1.0] * health.MIN_PACES)
    found = judge(fast, others, OK)
    assert found.state == "flagged"
    assert found.reason == "too fast to be true: 0.1 ms an item, the median of 5 others is 1,000 ms"
    assert state(slow, others) == "ok"
    assert state(WorkRecord(seconds=0.0, paced=health.MIN_ITEMS_FOR_PACE - 1), others) == "ok"  # too few to know
    assert state(fast, others_with([1.0] * (health.MIN_PACES - 1))) == "ok"


def test_a_client_with_many_keys_is_fast_but_not_too_fast() -> None:
    assert state(WorkRecord(seconds=200 * 0.011, paced=200), others_with([5.0] * 10)) == "ok"


@given(st.floats(1e-6, 1e3), st.lists(st.floats(0.2, 5.0), min_size=5, max_size=50), st.floats(0.2, 5.0))
def test_clients_that_are_alike_are_never_too_fast(usual: float, spread: list[float], own: float) -> None:
    """Within a factor of five of the usual, whatever that is: the median is at most 5 times it, so the rest is 2."""
    own = max(own, 0.5001)
    assert (
        state(WorkRecord(seconds=usual * own * 1000, paced=1000), others_with([usual * one for one in spread])) == "ok"
    )


# Out of line


def drawn(random: Random, shares: dict[str, float], count: int) -> dict[str, int]:
    found = random.choices(list(shares), list(shares.values()), k=count)
    return {label: found.count(label) for label in set(found)}


USUAL = {"DM": 0.4, "NON_DM": 0.57, "UNKNOWN": 0.03}


def test_a_client_that_always_says_the_same() -> None:
    others = [{"DM": 160, "NON_DM": 228, "UNKNOWN": 12}] * 3
    found = judge(WorkRecord(), others_with(hours=[({"NON_DM": 200}, others)]), OK)
    assert found.state == "flagged"
    assert found.reason == "results out of line with the others: 0% DM in 200 results, the others 40% (±4.9%)"
    assert state(WorkRecord(), others_with(hours=[({"NON_DM": 199}, others)])) == "ok"
    assert state(WorkRecord(), others_with(hours=[({"NON_DM": 200}, others[:2])])) == "ok"
    assert state(WorkRecord(), others_with(hours=[({"NON_DM": 200}, [{"DM": 80, "NON_DM": 119}] * 9)])) == "ok"


def test_a_kind_that_nobody_else_has() -> None:
    others = [{"some": 300}] * 3
    assert state(WorkRecord(), others_with(hours=[({"missing": 200}, others)])) == "flagged"
    assert state(WorkRecord(), others_with(hours=[({"some": 200}, others)])) == "ok"


def test_kinds_that_are_counted_together_are_not_compared() -> None:
    """Of a client with very many kinds they are other ones than of the next."""
    others = [{"some": 200, OTHER_KINDS: 200}] * 3
    assert state(WorkRecord(), others_with(hours=[({"some": 100, "more": 100}, others)])) == "flagged"
    assert state(WorkRecord(), others_with(hours=[({"some": 90, "more": 30, OTHER_KINDS: 80}, others)])) == "ok"
    assert state(WorkRecord(), others_with(hours=[({"some": 200}, [{OTHER_KINDS: 400}] * 3)])) == "flagged"


def test_of_four_clients_only_the_wrong_one_is_flagged() -> None:
    random = Random(2)
    all_of_them = [drawn(random, USUAL, 500) for _ in range(3)] + [{"UNKNOWN": 500}]
    states = [
        state(WorkRecord(standing=1000), others_with(hours=[(own, [one for one in all_of_them if one is not own])]))
        for own in all_of_them
    ]
    assert states == ["ok", "ok", "ok", "flagged"]


def test_what_changes_with_the_hour_is_nobodys_fault() -> None:
    """A client that worked only while other accounts were checked than now: pooled, it would stand out."""
    random = Random(3)
    early, late = {"DM": 0.9, "NON_DM": 0.1}, {"DM": 0.1, "NON_DM": 0.9}
    own = drawn(random, early, 400), [drawn(random, early, 300) for _ in range(5)]
    assert state(WorkRecord(), others_with(hours=[own, ({}, [drawn(random, late, 3000) for _ in range(5)])])) == "ok"


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(3, 12), st.floats(0.0, 1.0), st.integers(1, 6))
@pytest.mark.long
def test_clients_that_are_alike_are_never_out_of_line(random: Random, others: int, share: float, hours: int) -> None:
    mixes = [{"a": share, "b": 1 - share}, {"a": 1 - share, "b": share}]
    chosen = [mixes[n % 2] for n in range(hours)]
    told = [
        (drawn(random, mix, 200), [drawn(random, mix, random.randint(200, 600)) for _ in range(others)])
        for mix in chosen
    ]
    assert state(WorkRecord(), others_with(hours=told)) == "ok"


def verdicts_of(told: Mapping[str, tuple[Labels, int]]) -> dict[str, Health]:
    """Judge each of these clients by all others; each has results of one hour, and its standing."""
    standing = {name: work for name, (_, work) in told.items()}
    found = {}
    for name, (own, work) in told.items():
        others = {other: labels for other, (labels, _) in told.items() if other != name}
        comparison = Comparison({other: standing[other] for other in others}, {}, [ResultHour(own, others)])
        found[name] = state(WorkRecord(standing=work), comparison)
    return found


HONEST, LIE = {"DM": 200, "NON_DM": 300}, {"DM": 0, "NON_DM": 500}


@pytest.mark.parametrize("honest", [1, 2, 3])
def test_liars_of_the_same_standing_flag_nobody_unless_they_did_three_quarters_of_the_work(honest: int) -> None:
    told = {f"honest{n}": (HONEST, 500) for n in range(honest)} | {
        f"liar{n}": (LIE, 500) for n in range(3 * honest - 1)
    }
    assert set(verdicts_of(told).values()) == {"ok"}


def test_newcomers_flag_nobody_who_has_done_most_of_the_work_and_are_flagged_by_it() -> None:
    told = {f"worker{n}": (HONEST, 20_000) for n in range(16)} | {f"newcomer{n}": (LIE, 500) for n in range(40)}
    found = verdicts_of(told)
    assert {found[name] for name in told if name.startswith("worker")} == {"ok"}
    assert {found[name] for name in told if name.startswith("newcomer")} == {"flagged"}


def test_whose_results_were_taken_back_counts_for_nothing() -> None:
    told = {f"liar{n}": (LIE, 0) for n in range(50)} | {"honest": (HONEST, 500)}
    assert verdicts_of(told)["honest"] == "ok"


def test_one_client_alone_is_not_the_usual_however_much_it_did() -> None:
    told = {"large": (LIE, 10**6), "a": (HONEST, 300), "b": (HONEST, 300), "c": (HONEST, 300)}
    assert set(verdicts_of(told).values()) == {"ok"}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30_000)), min_size=2, max_size=20))
def test_who_is_flagged_has_done_no_majority_of_the_work(clients: list[tuple[bool, int]]) -> None:
    told = {str(n): (HONEST if honest else LIE, work) for n, (honest, work) in enumerate(clients)}
    flagged = [name for name, found in verdicts_of(told).items() if found == "flagged"]
    work = sum(work for _, work in told.values())
    assert sum(told[name][1] for name in flagged) <= work / 2


def test_however_many_identities_of_one_address_flag_nobody() -> None:
    """In a very small service they soon have done nearly all of the work."""
    liars = {f"liar{n}": (LIE, 500) for n in range(50)}
    standing = {name: work for name, (_, work) in liars.items()}
    hours = [ResultHour(HONEST, {name: labels for name, (labels, _) in liars.items()})]
    honest = WorkRecord(standing=500, seconds=0.5, paced=200)
    slow = dict.fromkeys(liars, 1.0)
    for blocks, found in ((("a",), "ok"), (("a", "b"), "ok"), (("a", "b", "c"), "flagged")):
        of_each = {name: blocks[n % len(blocks)] for n, name in enumerate(liars)}
        assert state(honest, Comparison(standing, {}, hours, of_each)) == found
        assert state(honest, Comparison(standing, slow, (), of_each)) == found


def test_slow_newcomers_make_nobody_too_fast() -> None:
    fast = WorkRecord(seconds=0.9, paced=200, standing=20_000)
    slow = {str(n): 1.0 for n in range(40)}
    assert state(fast, Comparison(dict.fromkeys(slow, 50), slow)) == "ok"
    assert state(fast, Comparison(dict.fromkeys(slow, 500), slow)) == "ok"  # as much as it has done itself
    assert state(fast, Comparison(dict.fromkeys(slow, 5000), slow)) == "flagged"


def test_the_error_that_is_stated() -> None:
    """Beyond so many standard errors lie fewer than 1 of 10 million looks, both ways."""
    assert math.erfc(health.MIN_STANDARD_ERRORS / math.sqrt(2)) < 1e-7
    assert math.sqrt(0.25 / health.MIN_RESULTS_FOR_SHARES) < 0.036
