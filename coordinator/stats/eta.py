"""How fast work goes on, and when it will be done.  protocol.md, "Statistics" """

from __future__ import annotations

from collections.abc import Sequence

from coordinator.wire.stats import Eta

MINUTES = 10
"""Active minutes that an ETA looks back on."""

WINDOW = 5
"""Seconds to a window, while there are no whole minutes yet."""

WINDOWS = 12
"""Windows that are looked back on."""


def rates(minutes: Sequence[tuple[int, int]], now: int, seconds: Sequence[int]) -> list[float]:
    """Items per second in each of the last active minutes, newest first.

    `minutes` are (minute, items) of those with any, newest first; `now` is the running minute; `seconds` the items of
    each of the last seconds, the newest last.  A minute in which work began or ended is not whole and does not count;
    before there are two whole ones, short windows of the last minute stand for them.
    """
    active = {minute for minute, _ in minutes}
    whole = [
        items / 60
        for minute, items in minutes
        if minute < now and minute - 1 in active and (minute + 1 in active or minute + 1 == now)
    ]
    return whole[:MINUTES] if len(whole) >= 2 else _windows(seconds) or whole


def _windows(seconds: Sequence[int]) -> list[float]:
    sums = [sum(seconds[max(0, end - WINDOW) : end]) for end in range(len(seconds), 0, -WINDOW)][:WINDOWS]
    active = [number for number in sums if number]
    if len(active) >= 3:
        active = active[:-1]  # work began somewhere in the first one
    return [number / WINDOW for number in active]


def eta(left: int, rates: Sequence[float]) -> Eta | None:
    """From the fastest and the slowest rate; None where nothing was done that could tell."""
    if not left:
        return Eta(0.0, 0.0)
    if not rates:
        return None
    return Eta(round(left / max(rates), 1), round(left / min(rates), 1))
