"""Rules that find clients which do harm: the one set of them, pure.

Each rule looks at one sign and gives a verdict in words.  The worst verdict is the client's health.  It gets better
only once the client has worked well for a while (`GOOD_BUCKETS_TO_RECOVER`), and its newer results have outweighed the
ones that stood out.  The consequence stands in `limits`: a flagged client may hold one bucket, so that it can do little
harm, and can show that it works again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

from coordinator.model import OTHER_KINDS, Health, ServiceSettings


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
"""Others that are as usual: of three, one that is wrong itself does not move the median.  They are connected from so
many blocks of addresses: who comes as many identities from one can outnumber all others where little was done."""

MOST_OF_THE_WORK = 0.25
"""Share of the work that those who stand out may have done: beyond that it is not known who is right, and nobody is
flagged.  The work of a client is what it has settled and nobody took back, so new identities weigh nothing."""

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
    standing: int = 0


@dataclass(frozen=True, slots=True)
class ResultHour:
    """Results of one hour: the client's own, and those of each other client that had some."""

    own: Labels
    others: Mapping[str, Labels]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The other clients: items that each has settled and nobody took back, seconds an item of each, and their results.

    `hours` are those in which the client itself had results, `blocks` the blocks of addresses of the others; one that
    is not among them is a block of its own.
    """

    standing: Mapping[str, int] = field(default_factory=dict)
    paces: Mapping[str, float] = field(default_factory=dict)
    hours: Sequence[ResultHour] = ()
    blocks: Mapping[str, str] = field(default_factory=dict)


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
    paces = {name: seconds for name, seconds in others.paces.items() if others.standing[name] >= MIN_ITEMS_FOR_PACE}
    if own is None or own >= MIN_SECONDS_PER_CHECK or len(paces) < MIN_PACES:
        return OK

    usual = _median([(seconds, others.standing[name]) for name, seconds in paces.items()])
    as_fast = [name for name, seconds in paces.items() if seconds * TOO_FAST_FACTOR < usual]
    if own * TOO_FAST_FACTOR >= usual or not _is_minority(record, others, as_fast, paces):
        return OK
    compared = f"{_milliseconds(own)} an item, the median of {len(paces)} others is {_milliseconds(usual)}"
    return Verdict("flagged", f"too fast to be true: {compared}")


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1000
    return f"{milliseconds:,.0f} ms" if milliseconds >= 10 else f"{round(milliseconds, 2):g} ms"


def _out_of_line(record: WorkRecord, others: Comparison) -> Verdict:
    """Compare the share of each kind of result with the others' medians, hour by hour (as Mantel and Haenszel do)."""
    hours = [
        hour
        for each in others.hours
        if len((hour := _comparable(each, others.standing)).others) >= MIN_CLIENTS_FOR_SHARES
    ]
    results = sum(sum(hour.own.values()) for hour in hours)
    if results < MIN_RESULTS_FOR_SHARES:
        return OK

    own = sum((Counter(hour.own) for hour in hours), Counter[str]())
    labels = {label for hour in hours for labels in (hour.own, *hour.others.values()) for label in labels}
    for label in sorted(labels - {OTHER_KINDS}):  # those are other ones with each client
        usual, error = _expected(hours, label, results, others.standing)
        share = own[label] / results
        certain = max(MIN_SHARE_DIFFERENCE, MIN_STANDARD_ERRORS * error)
        if abs(share - usual) < certain or not _stands_alone(record, others, hours, label, share - usual):
            continue
        found = f"{share:.0%} {label} in {results} results, the others {usual:.0%} (±{error:.1%})"
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


def _is_minority(record: WorkRecord, others: Comparison, alike: Collection[str], compared: Collection[str]) -> bool:
    """Tell whether a client and those that are like it have done so little of the work that the others are right."""
    own_side = record.standing + sum(others.standing[name] for name in alike)
    work = record.standing + sum(others.standing[name] for name in compared)
    usual = {others.blocks.get(name, name) for name in compared if name not in alike}
    return own_side <= MOST_OF_THE_WORK * work and len(usual) >= MIN_CLIENTS_FOR_SHARES


def _stands_alone(
    record: WorkRecord, others: Comparison, hours: Sequence[ResultHour], label: str, difference: float
) -> bool:
    """Tell whether those whose shares are nearer to the client's than to the usual one are a minority with it."""
    medians = [_median(_shares(hour, label, others.standing)) for hour in hours]
    compared = {name for hour in hours for name in hour.others}
    alike = set()
    for name in compared:
        counts = [(hour.others[name], usual) for hour, usual in zip(hours, medians, strict=True) if name in hour.others]
        results = sum(sum(labels.values()) for labels, _ in counts)
        apart = sum(labels.get(label, 0) - sum(labels.values()) * usual for labels, usual in counts) / results
        if abs(apart - difference) < abs(apart):
            alike.add(name)
    return _is_minority(record, others, alike, compared)


def _comparable(hour: ResultHour, standing: Mapping[str, int]) -> ResultHour:
    """Leave out the others that have too few results in that hour, or have no standing."""
    others = {
        name: labels
        for name, labels in hour.others.items()
        if min(sum(labels.values()), standing.get(name, 0)) >= MIN_RESULTS_FOR_SHARES
    }
    return ResultHour(hour.own, others)


def _shares(hour: ResultHour, label: str, standing: Mapping[str, int]) -> list[tuple[float, int]]:
    """Return the share of a label with each other client, and the work by which it weighs."""
    return [(labels.get(label, 0) / sum(labels.values()), standing[name]) for name, labels in hour.others.items()]


def _median(weighed: Sequence[tuple[float, int]]) -> float:
    """Return the value with half of the weight on either side."""
    half, below = sum(weight for _, weight in weighed) / 2, 0
    for value, weight in sorted(weighed):
        below += weight
        if below >= half:
            return value
    raise ValueError("nothing to compare with")


def _expected(
    hours: Sequence[ResultHour], label: str, results: int, standing: Mapping[str, int]
) -> tuple[float, float]:
    """Return the share of a label that a client like the others would have in those hours, and its standard error."""
    mean, variance = 0.0, 0.0
    for hour in hours:
        shares = _shares(hour, label, standing)
        usual = _median(shares)

        # How far the others are apart, beyond chance; 1.4826 makes a median deviation a standard one.
        spread = 1.4826 * _median([(abs(share - usual), weight) for share, weight in shares])

        mine = sum(hour.own.values())
        # As if one more of each kind had been seen, so that 0 of 200 is not for certain never.
        cautious = (usual * MIN_RESULTS_FOR_SHARES + 1) / (MIN_RESULTS_FOR_SHARES + 2)
        chance = cautious * (1 - cautious)

        mean += mine * usual
        variance += mine * chance + mine * mine * (chance / MIN_RESULTS_FOR_SHARES + spread * spread)

    return mean / results, sqrt(variance) / results
