"""How long it will take, from how it went."""

from __future__ import annotations

import pytest

from coordinator.stats.eta import eta, latest_eta, rates
from coordinator.wire.stats import Buckets, DemandCounts, Eta, Items, ServiceRow


def test_nothing_left_and_nothing_known() -> None:
    assert eta(0, []) == Eta(0.0, 0.0)
    assert eta(5, []) is None
    assert eta(600, [1.0, 2.0, 4.0]) == Eta(150.0, 600.0)


def test_only_whole_minutes_count() -> None:
    minutes = [(10, 5), (9, 600), (8, 1200), (7, 600), (6, 60)]
    # 10 runs on; in 6 work began.
    assert rates(minutes, 10, []) == [10.0, 20.0, 10.0]


def test_a_night_between_does_not_count() -> None:
    minutes = [(1000, 5), (999, 600), (998, 30), (12, 7), (11, 300), (10, 300), (9, 1)]
    # In 998 work began again, in 12 it had ended.
    assert rates(minutes, 1000, []) == [10.0, 5.0, 5.0]


def test_the_last_ten_count() -> None:
    minutes = [(n, 60 * n) for n in range(100, 80, -1)]
    assert rates(minutes, 101, []) == [float(n) for n in range(100, 90, -1)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([], []),
        ([0] * 60, []),
        ([10] * 5, [10.0]),
        ([3, *[10] * 5, *[20] * 5], [20.0, 10.0]),
        ([*[0] * 50, *[5] * 5, *[0] * 5, *[15] * 5], [15.0, 5.0]),
    ],
)
def test_short_windows_at_the_beginning(seconds: list[int], expected: list[float]) -> None:
    assert rates([(7, 100)], 7, seconds) == expected


def test_the_latest_eta_is_that_of_the_services_that_are_worked_on() -> None:
    def row(eta: Eta | None, state: str = "active", active: int = 0, items_per_second: float = 0.0) -> ServiceRow:
        demand = DemandCounts(0, 0, active)
        return ServiceRow("a", "A", "a", state, Items(), Buckets(), items_per_second, eta, [], demand)

    abandoned, done = row(Eta(30_000.0, 180_000.0)), row(Eta(0.0, 0.0), active=3)
    assert latest_eta([abandoned, done, row(Eta(60.0, 90.0), active=1)]) == Eta(60.0, 90.0)
    assert latest_eta([row(Eta(60.0, 90.0), items_per_second=0.1), row(Eta(50.0, 95.0), active=1)]) == Eta(60.0, 95.0)
    assert latest_eta([row(Eta(60.0, 90.0), active=1), row(None, active=1)]) is None
    assert latest_eta([abandoned, done]) is None
    assert latest_eta([row(Eta(60.0, 90.0), "paused", active=1), done]) == Eta(0.0, 0.0)
