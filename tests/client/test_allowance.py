"""The count of requests that an API still takes: whatever the clocks say, and whichever limit is the tightest."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import pytest

from coordinator.client.allowance import Allowance
from coordinator.client.checkers import UpstreamLimited
from coordinator.client.http_pool import HttpResponse

NOW = 1_800_000_000.0
"""The API's time when a test begins; its clock and ours may differ by an hour."""


class Clock:
    """A monotonic clock that a test moves, and the wall clock of the volunteer, which is `wrong` by so much."""

    def __init__(self, wrong: float = 0.0) -> None:
        self.now = 50.0
        self.wrong = wrong

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return NOW + self.now - 50.0 + self.wrong

    def allowance(self, requests: int = 0) -> Allowance:
        return Allowance(requests, 900.0, clock=self, wall=self.wall)

    def reply(self, status: int = 200, *, dated: bool = True, **headers: float | str) -> HttpResponse:
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        date = {"date": formatdate(NOW + self.now - 50.0, usegmt=True)} if dated else {}
        return HttpResponse(status, date | named, b"")


async def wait_of(allowance: Allowance) -> float:
    with pytest.raises(UpstreamLimited) as limited:
        await allowance.take()
    return limited.value.retry_after


@pytest.mark.parametrize("wrong", [-3600.0, 0.0, 3600.0])
@pytest.mark.parametrize("status", [200, 429])
async def test_our_own_clock_does_not_matter(wrong: float, status: int) -> None:
    clock = Clock(wrong)
    allowance = clock.allowance()
    await allowance.take()
    reply = clock.reply(status, x_rate_limit_remaining=0, x_rate_limit_reset=NOW + 600)
    if status == 429:
        with pytest.raises(UpstreamLimited):
            allowance.learn(reply)
    else:
        allowance.learn(reply)
    assert await wait_of(allowance) == pytest.approx(600)
    clock.now += 599
    assert await wait_of(allowance) == pytest.approx(1)
    clock.now += 1
    await allowance.take()


@pytest.mark.parametrize("wrong", [-3600.0, 3600.0])
async def test_without_a_date_a_wrong_clock_costs_a_window_at_most(wrong: float) -> None:
    clock = Clock(wrong)
    allowance = clock.allowance()
    sent, before = 0, clock.now
    for _ in range(10_000):  # the limit stays spent, and a reset is told that is always a minute away
        try:
            await allowance.take()
        except UpstreamLimited as limited:
            clock.now += min(limited.retry_after, 901.0)
            continue
        sent += 1
        assert clock.now - before <= 900
        before = clock.now
        reset = NOW + clock.now - 50 + 60
        with pytest.raises(UpstreamLimited):
            allowance.learn(clock.reply(429, dated=False, x_rate_limit_remaining=0, x_rate_limit_reset=reset))
        if clock.now > 86_400:
            break
    assert sent < 120  # in a day


async def test_a_limit_that_stays_spent_is_asked_for_less_and_less() -> None:
    clock = Clock()
    allowance = clock.allowance()
    waits = []
    for _ in range(12):
        await allowance.take()
        with pytest.raises(UpstreamLimited) as limited:
            allowance.learn(clock.reply(429, x_rate_limit_remaining=0, x_rate_limit_reset=NOW - 4000))
        waits.append(limited.value.retry_after)
        clock.now += waits[-1]
    assert waits == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900])

    await allowance.take()
    allowance.learn(clock.reply(200, x_rate_limit_remaining=3))
    await allowance.take()
    with pytest.raises(UpstreamLimited) as limited:
        allowance.learn(clock.reply(429, retry_after=0))
    assert limited.value.retry_after == 1  # it had an answer in between


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x_rate_limit_remaining": 0, "x_rate_limit_reset": NOW + 60}, 60),
        (
            {"x_rate_limit_remaining": 5, "x_app_limit_24hour_remaining": 0, "x_app_limit_24hour_reset": NOW + 7000},
            7000,
        ),
        ({"x_user_limit_24hour_remaining": 0, "x_user_limit_24hour_reset": NOW + 500_000}, 86_400),
        (
            {
                "x_rate_limit_remaining": 0,
                "x_rate_limit_reset": NOW + 60,
                "x_user_limit_24hour_remaining": 0,
                "x_user_limit_24hour_reset": NOW + 7000,
            },
            7000,
        ),
        ({"ratelimit_remaining": 0, "ratelimit_reset": 33}, 33),
        ({"retry_after": 17}, 17),
        ({"retry_after": formatdate(NOW + 44, usegmt=True)}, 44),
        ({"retry_after": 17, "x_rate_limit_remaining": 0, "x_rate_limit_reset": NOW + 60}, 60),
        ({"x_rate_limit_reset": "nan"}, 900),
        ({}, 900),
    ],
)
async def test_the_tightest_of_all_limits_counts(headers: dict[str, Any], wait: float) -> None:
    clock = Clock()
    allowance = clock.allowance()
    await allowance.take()
    with pytest.raises(UpstreamLimited):
        allowance.learn(clock.reply(429, **headers))
    assert await wait_of(allowance) == pytest.approx(wait)


async def test_no_more_are_sent_than_are_left() -> None:
    clock = Clock()
    allowance = clock.allowance()
    for _ in range(5):
        await allowance.take()
    allowance.learn(clock.reply(200, x_rate_limit_remaining=5, x_rate_limit_reset=NOW + 60))
    await allowance.take()  # 5 are left, and 4 others under way may be among them or not
    waiting = asyncio.ensure_future(allowance.take())
    await asyncio.sleep(0)
    assert not waiting.done()

    allowance.learn(clock.reply(200, x_rate_limit_remaining=6, x_rate_limit_reset=NOW + 60))
    await waiting
    allowance.learn(clock.reply(200, x_rate_limit_remaining=0, x_rate_limit_reset=NOW + 60))
    assert await wait_of(allowance) == pytest.approx(60)


async def test_after_a_limit_one_request_finds_out() -> None:
    clock = Clock()
    allowance = clock.allowance()
    await allowance.take()
    allowance.learn(clock.reply(200, x_rate_limit_remaining=0, x_rate_limit_reset=NOW + 60))
    clock.now += 60

    await allowance.take()
    waiting = [asyncio.ensure_future(allowance.take()) for _ in range(8)]
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)
    allowance.learn(clock.reply(200, x_rate_limit_remaining=179, x_rate_limit_reset=NOW + 960))
    await asyncio.gather(*waiting)


async def test_replies_to_what_was_under_way_do_not_double_the_wait() -> None:
    clock = Clock()
    allowance = clock.allowance()
    for _ in range(20):
        await allowance.take()
    for _ in range(20):
        allowance.learn(clock.reply(200, x_rate_limit_remaining=0, x_rate_limit_reset=NOW))
    assert await wait_of(allowance) == pytest.approx(1)


async def test_our_own_count_holds_where_the_api_tells_nothing() -> None:
    clock = Clock()
    allowance = clock.allowance(requests=2)
    await allowance.take()
    await allowance.take()
    assert await wait_of(allowance) == 900
    clock.now += 900
    await allowance.take()


async def test_a_request_without_an_answer_is_not_waited_for() -> None:
    clock = Clock()
    allowance = clock.allowance()
    await allowance.take()
    allowance.learn(clock.reply(200, x_rate_limit_remaining=1))
    await allowance.take()
    waiting = asyncio.ensure_future(allowance.take())
    await asyncio.sleep(0)
    allowance.give_up()
    await waiting


@pytest.mark.parametrize(
    ("headers", "left", "why"),
    [
        (
            {"x_rate_limit_limit": 180, "x_rate_limit_remaining": 179, "x_rate_limit_reset": NOW + 900},
            "179 of 180 requests in 15 minutes are left (new ones in 15 min)",
            None,
        ),
        (
            {
                "x_app_limit_24hour_limit": 5000,
                "x_app_limit_24hour_remaining": 0,
                "x_app_limit_24hour_reset": NOW + 17_280,
            },
            "none of 5,000 requests a day for the token's app are left (new ones in 4 h 48 min)",
            "its limit of 5,000 requests a day for the token's app is reached",
        ),
        (
            {"x_user_limit_24hour_remaining": 3},
            "3 of the requests a day for the token's account are left",
            None,
        ),
        (
            {"ratelimit_limit": 9, "ratelimit_remaining": 0, "ratelimit_reset": 40},
            "none of 9 requests that ratelimit tells are left (new ones in 40 s)",
            "its limit of 9 requests that ratelimit tells is reached",
        ),
    ],
)
async def test_each_limit_is_told_in_words(headers: dict[str, Any], left: str, why: str | None) -> None:
    clock = Clock(wrong=3600.0)
    allowance = clock.allowance()
    await allowance.take()
    allowance.learn(clock.reply(200, **headers, retry_after=0))
    assert [limit.left for limit in allowance.latest] == [left]
    if why is not None:
        with pytest.raises(UpstreamLimited) as limited:
            await allowance.take()
        assert limited.value.why == why


async def test_the_limit_that_is_spent_for_longest_is_named() -> None:
    clock = Clock()
    allowance = clock.allowance()
    await allowance.take()
    short: dict[str, Any] = {"x_rate_limit_limit": 180, "x_rate_limit_remaining": 0, "x_rate_limit_reset": NOW + 60}
    long = {"x_app_limit_24hour_limit": 50, "x_app_limit_24hour_remaining": 0, "x_app_limit_24hour_reset": NOW + 7200}
    with pytest.raises(UpstreamLimited, match="takes nothing for 2 h: its limit of 50 requests a day"):
        allowance.learn(clock.reply(429, **{**short, **long}, retry_after=7201))
