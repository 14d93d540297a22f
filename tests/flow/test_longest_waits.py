"""Turns between nodes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import msgspec

from coordinator.flow.demand_queue import ClientEvent, DemandQueue, Ticket
from coordinator.flow.longest_waits import (
    BELIEVE_WAITS_FOR,
    LONG_WAIT,
    MOST_SERVICES,
    REPEAT_AFTER,
    LongestWaits,
    TurnOfNode,
)
from coordinator.flow.session_registry import Holder
from coordinator.flow.signal_types import LongWaits
from coordinator.flow.signals import MAX_PAYLOAD, Signals
from coordinator.model import Boot, ClientId, ServiceId
from coordinator.store.pool import Database

SERVICE, OTHER = ServiceId(1), ServiceId(2)
HERE, THERE = Boot(1), Boot(2)
NOW = 1000.0


def longest_waits() -> tuple[LongestWaits, list[LongWaits]]:
    """Make one, and the list of what it tells."""
    signals, told = Signals(Database("postgresql:///"), HERE, asyncio.Event()), list[LongWaits]()
    signals.on(LongWaits, told.append)
    return LongestWaits(HERE, signals), told


def test_a_client_goes_first_that_has_waited_longer_by_far() -> None:
    waits, _ = longest_waits()
    assert not waits.goes_first_elsewhere(SERVICE, NOW, NOW)
    waits.hear(LongWaits(THERE, {SERVICE: 3.0}), NOW)
    assert waits.goes_first_elsewhere(SERVICE, NOW, NOW)
    assert not waits.goes_first_elsewhere(OTHER, NOW, NOW)
    assert not waits.goes_first_elsewhere(SERVICE, NOW - 3.0 + LONG_WAIT, NOW)


def test_what_a_node_tells_holds_until_it_tells_otherwise_and_not_for_ever() -> None:
    waits, _ = longest_waits()
    waits.hear(LongWaits(THERE, {SERVICE: 3.0}), NOW)
    assert not waits.goes_first_elsewhere(SERVICE, NOW, NOW + BELIEVE_WAITS_FOR)
    waits.hear(LongWaits(THERE, {}), NOW)
    assert not waits.goes_first_elsewhere(SERVICE, NOW, NOW)


def test_a_node_does_not_wait_for_itself_nor_again_for_who_has_left_something() -> None:
    waits, _ = longest_waits()
    waits.hear(LongWaits(HERE, {SERVICE: 3.0}), NOW)
    assert not waits.goes_first_elsewhere(SERVICE, NOW, NOW)
    waits.hear(LongWaits(THERE, {SERVICE: 3.0, OTHER: 3.0}), NOW)
    waits.forget(SERVICE)
    assert not waits.goes_first_elsewhere(SERVICE, NOW, NOW)
    assert waits.goes_first_elsewhere(OTHER, NOW, NOW)


def test_others_are_told_of_long_waits_when_they_are_news() -> None:
    waits, told = longest_waits()
    waits.tell({SERVICE: NOW}, NOW + LONG_WAIT / 2)
    assert told == []
    waits.tell({SERVICE: NOW, OTHER: NOW + 1}, NOW + LONG_WAIT)
    waits.tell({SERVICE: NOW}, NOW + LONG_WAIT + REPEAT_AFTER / 2)
    assert told == [LongWaits(HERE, {SERVICE: LONG_WAIT})]
    waits.tell({SERVICE: NOW}, NOW + LONG_WAIT + REPEAT_AFTER)
    assert told[1:] == [LongWaits(HERE, {SERVICE: LONG_WAIT + REPEAT_AFTER})]
    waits.tell({}, NOW + 4)
    waits.tell({}, NOW + 40)
    assert told[2:] == [LongWaits(HERE, {})]


def test_who_is_alone_tells_nobody() -> None:
    waits, told = longest_waits()
    waits._signals.alone = True
    waits.tell({SERVICE: NOW}, NOW + 10)
    assert told == []


def test_the_longest_waits_of_many_services_fit_into_a_signal() -> None:
    waits, told = longest_waits()
    waits.tell({ServiceId(2**31 - n): NOW + n for n in range(2 * MOST_SERVICES)}, NOW + 10_000_000)
    assert len(told[0].seconds) == MOST_SERVICES
    assert max(told[0].seconds.values()) == 10_000_000
    assert len(msgspec.json.encode(told[0])) < MAX_PAYLOAD - 100


def holder_of(client: str) -> Holder:
    """A session of a client, as far as a queue looks at it."""
    return cast(Holder, SimpleNamespace(client_id=client, session_id=client))


def test_what_comes_while_there_is_too_little_goes_first_to_who_has_waited_longer() -> None:
    waits, _ = longest_waits()
    queue = DemandQueue()
    turn = TurnOfNode(SERVICE, queue, waits)
    queue.add(Ticket(holder_of("ada"), NOW))
    waits.hear(LongWaits(THERE, {SERVICE: 3.0}), NOW)

    turn.something_came()
    assert not turn.gives_way(NOW)  # there may be enough for all
    turn.found_too_little(heard=False)
    assert not turn.gives_way(NOW)  # nothing has come
    turn.something_came()
    assert turn.gives_way(NOW)
    assert not turn.gives_way(NOW)  # once
    turn.begin_claim()
    turn.end_claim(served=False)
    turn.found_too_little(heard=True)
    assert turn.gives_way(NOW)


def test_who_has_left_something_does_not_go_first_again() -> None:
    waits, _ = longest_waits()
    queue = DemandQueue()
    turn = TurnOfNode(SERVICE, queue, waits)
    queue.add(Ticket(holder_of("ada"), NOW))
    waits.hear(LongWaits(THERE, {SERVICE: 3.0}), NOW)
    turn.found_too_little(heard=True)
    assert turn.gives_way(NOW)
    turn.begin_claim()
    turn.end_claim(served=True)
    turn.found_too_little(heard=True)
    assert not turn.gives_way(NOW)


def test_a_client_waits_anew_for_its_next_bucket() -> None:
    queue = DemandQueue()
    assert queue.waiting_since() is None
    for _ in range(2):
        queue.add(Ticket(holder_of("ada"), NOW))
    queue.add(Ticket(holder_of("bob"), NOW + 1))
    assert queue.waiting_since() == NOW
    taken = queue.take(2, NOW + 5)
    assert queue.waiting_since() == NOW + 5
    queue.put_back(taken)
    assert queue.waiting_since() == NOW
    queue.set_aside(ClientId("ada"), ClientEvent.HOLDS_ENOUGH, NOW + 5)
    assert queue.waiting_since() == NOW + 1
