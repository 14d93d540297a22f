"""The X API checkers against the stand-in for the API; what its answers mean is in `test_x_answers.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest

from coordinator import sample
from coordinator.client.checkers import Checker, CheckFailed, UpstreamLimited, UpstreamOut, close_checker
from coordinator.client.x_api import dm_check, follower_check, following_check
from coordinator.errors import ConfigError
from coordinator.standin import SocialGraph, StandIn
from coordinator.standin_troubles import ApiFault

T = TypeVar("T", bound=Checker)
Closing = Callable[[T], T]
PROFILE = {"source": "me"}
NAMES = [account.screen_name for account in sample.accounts()]


@pytest.fixture
async def closing() -> AsyncIterator[Closing[Any]]:
    """Closes at the end of the test what it is called with."""
    async with AsyncExitStack() as stack:

        def keep(checker: Any) -> Any:
            stack.push_async_callback(close_checker, checker)
            return checker

        yield keep


def item(key: str) -> dict[str, Any]:
    return {"item": 1, "key": key}


def first(found: Callable[[str], bool]) -> str:
    return next(name for name in NAMES if found(name))


async def test_dm_check(standin: StandIn, closing: Closing[Any]) -> None:
    check = closing(dm_check(standin.url, "secret"))
    there = [name for name in NAMES if SocialGraph.exists(name)]
    takes_messages = next(name for name in there if SocialGraph.can_dm(name))
    takes_none = next(name for name in there if not SocialGraph.can_dm(name))
    assert await check(item(takes_messages), PROFILE) == {"dm": "DM"}
    assert await check(item(takes_none), PROFILE) == {"dm": "NON_DM"}
    assert await check(item(first(lambda name: not SocialGraph.exists(name))), PROFILE) == {"dm": "UNKNOWN"}

    request = standin.latest[0]
    assert request.path == "/1.1/friendships/show.json"
    assert request.query == {"source_screen_name": "me", "target_screen_name": takes_messages}
    assert request.headers["authorization"] == "Bearer secret"
    assert standin.connections == 1  # kept alive


async def test_a_base_url_may_have_a_path(standin: StandIn, closing: Closing[Any]) -> None:
    await closing(dm_check(f"{standin.url}/base/"))(item("a"), PROFILE)
    assert standin.latest[0].path == "/base/1.1/friendships/show.json"


async def test_a_limit_is_not_tried_out(standin: StandIn, closing: Closing[Any]) -> None:
    standin.troubles.refusing = ApiFault.of(429, 88, "Rate limit exceeded", {"retry-after": "17"})
    check = closing(dm_check(standin.url))
    for _ in range(2):
        with pytest.raises(UpstreamLimited) as limited:
            await check(item("a"), PROFILE)
        assert limited.value.retry_after == pytest.approx(17, abs=1)
    assert standin.served == 1  # the second one was not even sent


async def test_an_api_that_asks_for_patience_gets_it(standin: StandIn, closing: Closing[Any]) -> None:
    standin.troubles.down, standin.troubles.down_headers = 503, {"retry-after": "4"}
    with pytest.raises(UpstreamOut) as out:
        await closing(dm_check(standin.url))(item("a"), PROFILE)
    assert out.value.at_least == 4


async def test_faults_are_told_apart(standin: StandIn, closing: Closing[Any]) -> None:
    check = closing(dm_check(standin.url))
    standin.troubles.refusing = ApiFault(200, {})
    with pytest.raises(CheckFailed, match=r"no relationship\.source\.can_dm"):
        await check(item("a"), PROFILE)
    with pytest.raises(CheckFailed, match="no users"):
        await closing(follower_check(standin.url))(item("a"), PROFILE)
    with pytest.raises(ConfigError, match="needs a profile"):
        await check(item("a"), {})
    with pytest.raises(UpstreamOut, match=r"nothing listens at 127\.0\.0\.1:9: connection refused"):
        await closing(dm_check("http://127.0.0.1:9"))(item("a"), PROFILE)
    with pytest.raises(ConfigError, match="is not an HTTP address"):
        dm_check("ftp://x")


async def test_lists_are_whole_and_go_on_after_a_limit(standin: StandIn, closing: Closing[Any]) -> None:
    name = "SenJohnMcCain"
    standin.troubles.page = 25
    check = closing(follower_check(standin.url))
    whole = await check(item(name), {})
    assert whole == {
        "accounts": [{"key": follow.follower} for follow in sample.follows() if follow.followed == name],
        "complete": True,
    }
    assert [request.query["cursor"] for request in standin.latest] == ["-1", "25", "50"]
    assert await closing(following_check(standin.url))(item(first(lambda key: not SocialGraph.exists(key))), {}) == {
        "missing": True
    }

    async with StandIn(latency=0.0, jitter=0.0, requests=1, window=1.0) as api:
        api.troubles.page = 25
        check = closing(follower_check(api.url))
        for _ in range(2):  # a limit after each page
            with pytest.raises(UpstreamLimited) as limited:
                await check(item(name), {})
            await asyncio.sleep(limited.value.retry_after)
        assert await check(item(name), {}) == whole
        asked = [request.query["cursor"] for request in api.latest]
        assert list(dict.fromkeys(asked)) == ["-1", "25", "50"]
        assert asked.count("-1") == 1  # it went on where it was


async def test_a_list_that_is_not_asked_for_again_is_forgotten(standin: StandIn, closing: Closing[Any]) -> None:
    check = closing(follower_check(standin.url))
    standin.troubles.down = 503
    for n in range(1010):
        check._remember(f"account{n}", "5", [])
    assert len(check._interrupted) == 1000
    with pytest.raises(UpstreamOut):
        await check(item("account1009"), {})
    assert standin.latest[-1].query["cursor"] == "5"
