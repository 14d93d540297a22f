"""The pauses of one service: when checks may begin, what is told to the server, and what stands in the log."""

from __future__ import annotations

import logging

import pytest

from coordinator.client.backoff import Backoff
from coordinator.client.upstream_pause import FAILURES_IN_A_ROW, UpstreamPause


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 1e-6  # no two checks begin in one moment
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pause(clock: Clock) -> UpstreamPause:
    return UpstreamPause("dm_check", Backoff(2.0, 30.0, chance=lambda: 1.0), clock)


def fail(pause: UpstreamPause) -> float | None:
    began = pause.begin()
    told = pause.failed("nobody there", 0.0, began)
    pause.end(began)
    return told


def outage(pause: UpstreamPause, clock: Clock, seconds: float) -> list[float]:
    """The pauses of an outage, each waited out."""
    told, end = [], clock.now + seconds
    while clock.now < end:
        assert pause.admits()
        seconds_of_pause = fail(pause)
        if seconds_of_pause is not None:
            assert not pause.admits()
            told.append(seconds_of_pause)
            clock.now += seconds_of_pause
    return told


def test_pauses_grow_to_half_a_minute(pause: UpstreamPause, clock: Clock) -> None:
    assert outage(pause, clock, 150) == [2, 4, 8, 16, 30, 30, 30, 30]
    began = pause.begin()
    pause.answered(began)
    assert pause.admits()
    assert outage(pause, clock, 5) == [2, 4]  # the next one begins anew


def test_single_failures_are_no_outage(pause: UpstreamPause) -> None:
    for _ in range(50):
        for _ in range(FAILURES_IN_A_ROW - 1):
            assert fail(pause) is None
            assert pause.admits()
        pause.answered(pause.begin())


def test_what_was_under_way_counts_once(pause: UpstreamPause, clock: Clock) -> None:
    under_way = [pause.begin() for _ in range(100)]
    told = [pause.failed("nobody there", 0.0, began) for began in under_way]
    assert [seconds for seconds in told if seconds is not None] == [2]
    clock.now += 2.1
    probe = pause.begin()
    assert not pause.admits()  # one alone finds out
    assert pause.failed("nobody there", 0.0, under_way[0]) is None
    pause.answered(under_way[1])
    assert not pause.admits()
    pause.answered(probe)
    assert pause.admits()


def test_a_probe_that_finds_nothing_out_makes_room_for_another(pause: UpstreamPause, clock: Clock) -> None:
    outage(pause, clock, 1)
    probe = pause.begin()
    assert not pause.admits()
    pause.end(probe)
    assert pause.admits()


def test_a_pause_lasts_as_long_as_the_api_asks_for(pause: UpstreamPause, clock: Clock) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        told = pause.failed("nobody there", 44.0, pause.begin())
    assert told == 44
    assert pause.seconds == pytest.approx(44, abs=0.1)


def test_an_outage_is_a_line_a_minute(pause: UpstreamPause, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    outage(pause, clock, 300)
    pause.answered(pause.begin())
    lines = caplog.messages
    assert lines[0].startswith("dm_check: the outside API is out: nobody there")
    assert lines[-1].startswith("dm_check: the outside API works again, after 5 min")
    assert 4 <= len(lines[1:-1]) <= 5
    assert all("still out" in line for line in lines[1:-1])


def test_a_limit_is_told_once(pause: UpstreamPause, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "coordinator.client")
    told = [pause.limited(900.0, "its limit is reached") for _ in range(100)]
    assert [seconds for seconds in told if seconds is not None] == [900]
    assert pause.limited(5000.0, "its limit is reached") == 5000  # of the day, not the quarter of an hour
    assert caplog.messages == ["dm_check: the outside API takes no more for 15 min: its limit is reached"]
    assert not pause.admits()
    clock.now += 5000
    assert pause.admits()


def test_a_limit_that_returns_each_second_is_a_line_a_minute(
    pause: UpstreamPause, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    for _ in range(600):
        pause.answered(pause.begin())
        pause.limited(1.0, "its limit is reached")
        clock.now += 1.0
    assert 20 <= len(caplog.messages) <= 22  # its begin and its end
