"""Rules that find clients which do harm: the one set of them, pure.

Each rule looks at one sign and gives a verdict in words.  The worst verdict is the client's health.  It gets better
only once the client has worked well for a while (`GOOD_BUCKETS_TO_RECOVER`), and its newer results have outweighed the
ones that stood out.  The consequence stands in `limits`: a flagged client may hold one bucket, so that it can do little
harm, and can show that it works again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import NamedTuple

from coordinator.model import Health, ServiceSettings


class Thresholds(NamedTuple):
    """Counts from which on a client is watched, and flagged."""

    watched: int
    flagged: int


GOOD_BUCKETS_TO_RECOVER = 3
"""Buckets settled whole in a row after which earlier faults are forgotten: one may be luck, and a flagged client,
which has one at a time, should not have to wait for long."""

DEAD_BUCKETS = Thresholds(watched=1, flagged=3)
"""Buckets that died: one may be a crash of the outside API, the third within so few is a habit."""

TAKEN_WHILE_DYING = Thresholds(watched=1, flagged=1)
"""Buckets taken while older ones died: it plainly does not work on what it has."""

IDLE_ASKS = Thresholds(watched=2, flagged=4)
"""Asks, each a `patience` apart, while all it held lay untouched.  One is what a slow client does that orders ahead."""

REFUSED_SUBMITS = Thresholds(watched=3, flagged=5)
"""Submits refused in a row: one or two are a slip, a faulty checker goes on and on."""

FULL_RETURNS = Thresholds(watched=3, flagged=4)
"""Times that it returned all it took, by whatever way.  The waits between them (protocol.md, "Give-backs") make the
fourth one come 7 s after the first at the soonest, so a stumbling start is none."""

MIN_ITEMS_FOR_PACE = 100
"""Items from which on a pace is known: about a bucket."""

TOO_FAST_FACTOR = 10.0
"""Times that a client must be faster than the median of the others to be too fast: twice is a better connection, and
five API keys make five times."""

MIN_PACES = 5
"""Others whose pace must be known: the median of fewer moves too much with each."""

MIN_SECONDS_PER_CHECK = 0.01
"""An answer through the Internet takes longer than this; who takes longer for each item may have checked it."""

MIN_RESULTS_FOR_SHARES = 200
"""Results of its own, and of each other, from which on shares are compared: their standard error is 3.5 % at most."""

MIN_CLIENTS_FOR_SHARES = 3
"""Others to compare with: of three, one that is wrong itself does not move the median."""

MIN_SHARE_DIFFERENCE = 0.2
"""Difference of shares below which nobody is harmed, however certain it is."""

MIN_STANDARD_ERRORS = 6.0
"""Standard errors beyond which shares differ for certain: of a client like the others, fewer than 1 comparison in 10
million is (2 in 10⁹ by the normal distribution; 200 results have somewhat heavier tails)."""

_RANK: dict[Health, int] = {"ok": 0, "watched": 1, "flagged": 2}


class Verdict(NamedTuple):
    """A state of health; `reason` in words, None where it is ok."""

    state: Health
    reason: str | None


OK = Verdict("ok", None)

Labels = Mapping[str, int]
"""The number of results of each kind."""


@dataclass(frozen=True, slots=True)
class WorkRecord:
    """The work of one client in one service lately; the schema explains the columns of these names."""

    well: int = 0
    died: int = 0
    asked_on: int = 0
    hoarded: int = 0
    refused: int = 0
    returned: int = 0
    seconds: float = 0.0
    paced: int = 0


@dataclass(frozen=True, slots=True)
class ResultHour:
    """Results of one hour: the client's own, and those of each other client that had some."""

    own: Labels
    others: Sequence[Labels]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The other clients: seconds an item of each, and the hours in which the client had results."""

    paces: Sequence[float] = ()
    hours: Sequence[ResultHour] = field(default_factory=tuple)


def judge(record: WorkRecord, others: Comparison, before: Verdict) -> Verdict:
    """Return the health of a client, and why.  If it has not got worse, it stays as it was told before."""
    found = max((rule(record, others) for rule in RULES), key=lambda verdict: _RANK[verdict.state])

    if worse(found, before):
        return found
    if worse(before, found) and record.well >= GOOD_BUCKETS_TO_RECOVER:
        return found
    return before


def worse(verdict: Verdict, other: Verdict) -> bool:
    """Return whether the state of one verdict is worse than that of another."""
    return _RANK[verdict.state] > _RANK[other.state]


def patience(dead_after: float) -> float:
    """Return the seconds for which all that a client holds may lie untouched before an ask counts (72 by default)."""
    return max(1.0, dead_after / 100)


def limits(health: Health, settings: ServiceSettings) -> tuple[int, int]:
    """Return how many buckets a client may have of one ask, and hold."""
    return (1, 1) if health == "flagged" else (settings.max_buckets_per_ask, settings.max_held_buckets)


def pace(seconds: float, items: int) -> float | None:
    """Return the seconds an item; None if too few items are known."""
    return seconds / items if items >= MIN_ITEMS_FOR_PACE else None


# The rules


def _died(record: WorkRecord, others: Comparison) -> Verdict:
    return _counted(record.died, DEAD_BUCKETS, f"dead buckets above zero: {record.died} lately")


def _asked_on(record: WorkRecord, others: Comparison) -> Verdict:
    reason = f"asks on while older ones die: took {record.asked_on} since a bucket died, and settled nothing"
    return _counted(record.asked_on, TAKEN_WHILE_DYING, reason)


def _hoarded(record: WorkRecord, others: Comparison) -> Verdict:
    reason = f"asks faster than it settles: {record.hoarded} asks in a row while all that it held lay untouched"
    return _counted(record.hoarded, IDLE_ASKS, reason)


def _refused(record: WorkRecord, others: Comparison) -> Verdict:
    return _counted(record.refused, REFUSED_SUBMITS, f"errors in a row: {record.refused} submits were refused")


def _returned(record: WorkRecord, others: Comparison) -> Verdict:
    reason = f"claims without submitting: returned what it took {record.returned} times in a row and settled nothing"
    return _counted(record.returned, FULL_RETURNS, reason)


def _too_fast(record: WorkRecord, others: Comparison) -> Verdict:
    own = pace(record.seconds, record.paced)
    if own is None or own >= MIN_SECONDS_PER_CHECK or len(others.paces) < MIN_PACES:
        return OK

    usual = median(others.paces)
    if own * TOO_FAST_FACTOR >= usual:
        return OK
    return Verdict(
        "flagged",
        f"too fast to be true: {own * 1000:.2g} ms an item, the median of {len(others.paces)} others is "
        f"{usual * 1000:.2g} ms",
    )


def _out_of_line(record: WorkRecord, others: Comparison) -> Verdict:
    """Compare the share of each kind of result with the others' medians, hour by hour (as Mantel and Haenszel do)."""
    hours = [hour for hour in others.hours if len(_comparable(hour)) >= MIN_CLIENTS_FOR_SHARES]
    results = sum(sum(hour.own.values()) for hour in hours)
    if results < MIN_RESULTS_FOR_SHARES:
        return OK

    own = sum((Counter(hour.own) for hour in hours), Counter[str]())
    for label in sorted({label for hour in hours for labels in (hour.own, *hour.others) for label in labels}):
        usual, error = _expected(hours, label, results)
        share = own[label] / results
        if abs(share - usual) >= MIN_SHARE_DIFFERENCE and abs(share - usual) >= MIN_STANDARD_ERRORS * error:
            found = f"{share:.0%} {label} in {results} results, the others {usual:.0%}"
            return Verdict("flagged", f"results out of line with the others: {found}")
    return OK


RULES: tuple[Callable[[WorkRecord, Comparison], Verdict], ...] = (
    _asked_on,
    _died,
    _hoarded,
    _refused,
    _returned,
    _too_fast,
    _out_of_line,
)


def _counted(count: int, thresholds: Thresholds, reason: str) -> Verdict:
    if count >= thresholds.flagged:
        return Verdict("flagged", reason)
    return Verdict("watched", reason) if count >= thresholds.watched else OK


def _comparable(hour: ResultHour) -> list[Labels]:
    return [labels for labels in hour.others if sum(labels.values()) >= MIN_RESULTS_FOR_SHARES]


def _expected(hours: Sequence[ResultHour], label: str, results: int) -> tuple[float, float]:
    """Return the share of a label that a client like the others would have in those hours, and its standard error."""
    mean, variance = 0.0, 0.0
    for hour in hours:
        shares = [labels.get(label, 0) / sum(labels.values()) for labels in _comparable(hour)]
        usual = median(shares)

        # How far the others are apart, beyond chance; 1.4826 makes a median deviation a standard one.
        spread = 1.4826 * median(abs(share - usual) for share in shares)

        mine = sum(hour.own.values())
        # As if one more of each kind had been seen, so that 0 of 200 is not for certain never.
        cautious = (usual * MIN_RESULTS_FOR_SHARES + 1) / (MIN_RESULTS_FOR_SHARES + 2)
        chance = cautious * (1 - cautious)

        mean += mine * usual
        variance += mine * chance + mine * mine * (chance / MIN_RESULTS_FOR_SHARES + spread * spread)

    return mean / results, sqrt(variance) / results
