"""Which clients do harm: the one set of rules, pure.

Each rule looks at one sign and says what it finds in words.  The worst finding is the client's health; it gets better
only once the client has worked well for a while (`WELL`), and its newer results have outweighed the ones that stood
out.  What comes of it stands in `limits`: a flagged client may hold one bucket, so that it can do little harm, and can
show that it works again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import median
from typing import NamedTuple

from coordinator.model import Health, ServiceSettings

WELL = 3
"""Buckets settled whole in a row after which earlier faults are forgotten: one may be luck, and a flagged client,
which has one at a time, should not have to wait for long."""

DIED = (1, 3)
"""Dead buckets, watched and flagged: one may be a crash of the outside API, the third within so few is a habit."""

ASKED_ON = 1
"""Buckets taken while older ones died: it plainly does not work on what it has."""

HOARDED = (2, 4)
"""Asks, watched and flagged, each a `patience` apart, while all it held lay untouched.  One is what a slow client does
that orders ahead."""

REFUSED = (3, 5)
"""Submits refused in a row, watched and flagged: one or two are a slip, a faulty checker goes on and on."""

RETURNED = (3, 4)
"""Times, watched and flagged, that it returned all it took, by whatever way.  The waits between them (protocol.md,
"Give-backs") make the fourth one come 7 s after the first at the soonest, so a stumbling start is none."""

PACED = 100
"""Items from which on a pace is one: about a bucket."""

FASTER = 10.0
"""How many times faster than the median of the others is too fast: twice is a better connection, and five API keys
make five times."""

PACERS = 5
"""Others whose pace must be known: the median of fewer moves too much with each."""

SECONDS_A_CHECK = 0.01
"""An answer through the Internet takes longer than this; who takes longer for each item may have checked it."""

LABELLED = 200
"""Results of its own, and of each other, from which on shares are compared: their standard error is 3.5 % at most."""

LABELLERS = 3
"""Others to compare with: of three, one that is wrong itself does not move the median."""

APART = 0.2
"""Difference of shares below which nobody is harmed, however certain it is."""

ERRORS = 6.0
"""Standard errors beyond which shares differ for certain: of a client like the others, fewer than 1 look in 10 million
is (2 in 10⁹ by the normal distribution; 200 results have somewhat heavier tails)."""

_RANK: dict[Health, int] = {"ok": 0, "watched": 1, "flagged": 2}


class Verdict(NamedTuple):
    """A state of health; `reason` in words, None where it is ok."""

    state: Health
    reason: str | None


OK = Verdict("ok", None)

Labels = Mapping[str, int]
"""How many results there were of each kind."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one client did in one service lately; the columns of `membership` say what is what."""

    well: int = 0
    died: int = 0
    asked_on: int = 0
    hoarded: int = 0
    refused: int = 0
    returned: int = 0
    seconds: float = 0.0
    paced: int = 0


@dataclass(frozen=True, slots=True)
class Hour:
    """Results of one hour: the client's own, and those of each other client that had some."""

    own: Labels
    others: Sequence[Labels]


@dataclass(frozen=True, slots=True)
class Others:
    """What there is to compare with: seconds an item of each other, and the hours in which the client had results."""

    paces: Sequence[float] = ()
    hours: Sequence[Hour] = field(default_factory=tuple)


def judge(record: Record, others: Others, before: Verdict) -> Verdict:
    """The health of a client, and why.  What has not got worse stays as it was said before."""
    found = max((rule(record, others) for rule in RULES), key=lambda one: _RANK[one.state])
    if worse(found, before):
        return found
    if worse(before, found) and record.well >= WELL:
        return found
    return before


def worse(one: Verdict, other: Verdict) -> bool:
    """Whether one state is worse than another."""
    return _RANK[one.state] > _RANK[other.state]


def patience(dead_after: float) -> float:
    """Seconds for which all that a client holds may lie untouched before an ask for more is noted (72 by default)."""
    return max(1.0, dead_after / 100)


def limits(health: Health, settings: ServiceSettings) -> tuple[int, int]:
    """How many buckets a client may have of one ask, and hold."""
    return (1, 1) if health == "flagged" else (settings.max_buckets_per_ask, settings.max_held_buckets)


def pace(seconds: float, items: int) -> float | None:
    """Seconds an item; None if too few are known."""
    return seconds / items if items >= PACED else None


# The rules


def _died(record: Record, others: Others) -> Verdict:
    return _counted(record.died, DIED, f"dead buckets above zero: {record.died} lately")


def _asked_on(record: Record, others: Others) -> Verdict:
    reason = f"asks on while older ones die: took {record.asked_on} since a bucket died, and settled nothing"
    return _counted(record.asked_on, (ASKED_ON, ASKED_ON), reason)


def _hoarded(record: Record, others: Others) -> Verdict:
    reason = f"asks faster than it settles: {record.hoarded} asks in a row while all that it held lay untouched"
    return _counted(record.hoarded, HOARDED, reason)


def _refused(record: Record, others: Others) -> Verdict:
    return _counted(record.refused, REFUSED, f"errors in a row: {record.refused} submits were refused")


def _returned(record: Record, others: Others) -> Verdict:
    reason = f"claims without submitting: returned what it took {record.returned} times in a row and settled nothing"
    return _counted(record.returned, RETURNED, reason)


def _too_fast(record: Record, others: Others) -> Verdict:
    own = pace(record.seconds, record.paced)
    if own is None or own >= SECONDS_A_CHECK or len(others.paces) < PACERS:
        return OK
    usual = median(others.paces)
    if own * FASTER >= usual:
        return OK
    return Verdict(
        "flagged",
        f"too fast to be true: {own * 1000:.2g} ms an item, the median of {len(others.paces)} others is "
        f"{usual * 1000:.2g} ms",
    )


def _out_of_line(record: Record, others: Others) -> Verdict:
    """Shares of each kind of result against the medians of the others, hour by hour (as Mantel and Haenszel do)."""
    hours = [hour for hour in others.hours if len(_enough(hour)) >= LABELLERS]
    results = sum(sum(hour.own.values()) for hour in hours)
    if results < LABELLED:
        return OK
    own = sum((Counter(hour.own) for hour in hours), Counter[str]())
    for label in sorted({label for hour in hours for one in (hour.own, *hour.others) for label in one}):
        usual, error = _expected(hours, label, results)
        share = own[label] / results
        if abs(share - usual) >= APART and abs(share - usual) >= ERRORS * error:
            found = f"{share:.0%} {label} in {results} results, the others {usual:.0%}"
            return Verdict("flagged", f"results out of line with the others: {found}")
    return OK


RULES: tuple[Callable[[Record, Others], Verdict], ...] = (
    _asked_on,
    _died,
    _hoarded,
    _refused,
    _returned,
    _too_fast,
    _out_of_line,
)


def _counted(count: int, thresholds: tuple[int, int], reason: str) -> Verdict:
    watched, flagged = thresholds
    if count >= flagged:
        return Verdict("flagged", reason)
    return Verdict("watched", reason) if count >= watched else OK


def _enough(hour: Hour) -> list[Labels]:
    return [one for one in hour.others if sum(one.values()) >= LABELLED]


def _expected(hours: Sequence[Hour], label: str, results: int) -> tuple[float, float]:
    """The share of a label that a client like the others would have in those hours, and its standard error."""
    mean, variance = 0.0, 0.0
    for hour in hours:
        shares = [one.get(label, 0) / sum(one.values()) for one in _enough(hour)]
        usual = median(shares)
        # How far the others are apart, beyond chance; 1.4826 makes a median deviation a standard one.
        spread = 1.4826 * median(abs(share - usual) for share in shares)
        mine = sum(hour.own.values())
        # As if one more of each kind had been seen, so that 0 of 200 is not for certain never.
        cautious = (usual * LABELLED + 1) / (LABELLED + 2)
        chance = cautious * (1 - cautious)
        mean += mine * usual
        variance += mine * chance + mine * mine * (chance / LABELLED + spread * spread)
    return mean / results, sqrt(variance) / results
