"""The front of a pool is believed while nothing is heard, and not for long."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from coordinator.flow import pool_fronts
from coordinator.flow.pool_fronts import TRUST_FOR, PoolFronts
from coordinator.model import ServiceId
from coordinator.store.fronts import POOL_START, PoolPlace

SERVICE = ServiceId(1)
FIRST: PoolPlace = (datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1))
SECOND: PoolPlace = (datetime(2026, 1, 2, tzinfo=UTC), UUID(int=2))


def test_a_place_is_believed_until_something_comes() -> None:
    fronts = PoolFronts()
    assert fronts.start(SERVICE) == POOL_START
    fronts.found(SERVICE, FIRST, fronts.mark(SERVICE), whole=True)
    fronts.found(SERVICE, SECOND, fronts.mark(SERVICE), whole=False)
    assert fronts.start(SERVICE) == SECOND
    fronts.forget(SERVICE)
    assert fronts.start(SERVICE) == POOL_START


def test_a_look_that_was_overtaken_is_not_believed() -> None:
    fronts = PoolFronts()
    mark = fronts.mark(SERVICE)
    fronts.forget(SERVICE)  # something came while it looked
    fronts.found(SERVICE, FIRST, mark, whole=True)
    assert fronts.start(SERVICE) == POOL_START


def test_a_place_is_looked_for_again_once_it_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(pool_fronts, "monotonic", lambda: now)
    fronts = PoolFronts()
    fronts.found(SERVICE, FIRST, fronts.mark(SERVICE), whole=True)
    assert fronts.to_look_for() == []  # nobody claims
    assert fronts.start(SERVICE) == FIRST
    assert fronts.to_look_for() == [SERVICE]
    fronts.found(SERVICE, FIRST, fronts.mark(SERVICE), whole=True)
    assert fronts.to_look_for() == []
    now = TRUST_FOR + 0.1
    assert fronts.start(SERVICE) == POOL_START
