"""How fast work goes on, and when it will be done.  protocol.md, "Statistics" """

from __future__ import annotations

from collections.abc import Sequence

from coordinator.wire.stats import Eta, ServiceRow

ETA_MINUTES = 10
"""Active minutes that an ETA looks back on."""

SHORT_WINDOW = 5
"""Seconds of a window, while there are no whole minutes yet."""

SHORT_WINDOWS = 12
"""Windows that are looked back on."""


def rates(minutes: Sequence[tuple[int, int]], now: int, seconds: Sequence[int]) -> list[float]:
    """Return the items per second in each of the last active minutes, newest first.

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
    return whole[:ETA_MINUTES] if len(whole) >= 2 else _short_rates(seconds) or whole


def _short_rates(seconds: Sequence[int]) -> list[float]:
    ends = range(len(seconds), 0, -SHORT_WINDOW)
    sums = [sum(seconds[max(0, end - SHORT_WINDOW) : end]) for end in ends][:SHORT_WINDOWS]
    active = [items for items in sums if items]

    if len(active) >= 3:
        active = active[:-1]  # work began somewhere in the first one
    return [items / SHORT_WINDOW for items in active]


def eta(left: int, rates: Sequence[float]) -> Eta | None:
    """Return the seconds until `left` items are done, at the fastest and the slowest rate; None if none is known."""
    if not left:
        return Eta(0.0, 0.0)
    if not rates:
        return None
    return Eta(round(left / max(rates), 1), round(left / min(rates), 1))


def latest_eta(services: Sequence[ServiceRow]) -> Eta | None:
    """Return when the last of the services that are worked on will be done; None if nobody works, or one cannot tell.

    A service on which nobody works goes by a pace of long ago, and would stand for all the others.
    """
    left = [service for service in services if service.state == "active" and service.eta != Eta(0.0, 0.0)]
    if not left:
        return Eta(0.0, 0.0)

    worked_on = [service.eta for service in left if service.demand.active or service.items_per_second]
    known = [eta for eta in worked_on if eta is not None]
    if not known or len(known) < len(worked_on):
        return None
    return Eta(max(eta.low for eta in known), max(eta.high for eta in known))
