"""The stand-in for the outside API, over real sockets."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from coordinator import sample
from coordinator.standin import SocialGraph, StandIn
from coordinator.standin_troubles import MAX_USERS_PER_PAGE, PAGE, ApiFault
from tests.bounded import within

SHOW = "/1.1/friendships/show.json"
FOLLOWERS = "/1.1/followers/list.json"
FRIENDS = "/1.1/friends/list.json"


class Caller:
    """A keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, standin: StandIn) -> Caller:
        host, port = standin.url.removeprefix("http://").split(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def raw(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        is_json = "json" in headers["content-type"]
        return int(first.split()[1]), headers, json.loads(body) if is_json else body

    async def get(self, target: str, token: str = "t") -> tuple[int, dict[str, str], Any]:
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
        return await self.raw(head.encode())


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn(latency=0.0, jitter=0.0, requests=0) as server:
        yield server


@pytest.fixture
async def caller(standin: StandIn) -> AsyncIterator[Caller]:
    connection = await Caller.to(standin)
    yield connection
    connection.writer.close()


def test_the_sample_is_whole() -> None:
    accounts, follows = list(sample.accounts()), list(sample.follows())
    assert len(accounts) == 1988
    assert len({one.screen_name.lower() for one in accounts}) == 1988
    assert sum(one.account_id is None for one in accounts) == 10
    assert len(follows) == 3859
    names = {one.screen_name.lower() for one in accounts}
    assert {name.lower() for one in follows for name in one} <= names


async def test_friendship_says_whether_the_target_takes_messages(caller: Caller) -> None:
    for name in ("JohnBoozman", "RoyBlunt", "SenatorBurr", "bfrist"):
        status, _, body = await caller.get(f"{SHOW}?source_screen_name=a&target_screen_name={name}")
        assert status == 200
        assert body["relationship"]["source"]["can_dm"] is SocialGraph.can_dm(name)
    status, _, body = await caller.get(f"{SHOW}?source_screen_name=SenAlexander&target_screen_name=royblunt")
    assert body["relationship"]["source"]["following"] is True


def test_answers_are_mixed_and_the_same_every_time() -> None:
    names = [one.screen_name for one in sample.accounts()]
    missing = sum(not SocialGraph.exists(name) for name in names)
    assert 0.01 < missing / len(names) < 0.03
    assert 0.3 < sum(SocialGraph.can_dm(name) for name in names) / len(names) < 0.5
    assert SocialGraph.can_dm("BFRIST") is SocialGraph.can_dm("bfrist")


@pytest.mark.parametrize(("path", "side"), [(FOLLOWERS, "follower"), (FRIENDS, "followed")])
@pytest.mark.parametrize("count", ["", "&count=20"])
async def test_lists_come_in_pages(caller: Caller, path: str, side: str, count: str) -> None:
    name = "SenJohnMcCain"
    found, cursor, pages = [], -1, 0
    while cursor != 0:
        status, _, body = await caller.get(f"{path}?screen_name={name}&cursor={cursor}{count}")
        assert status == 200
        found += [user["screen_name"] for user in body["users"]]
        cursor, pages = body["next_cursor"], pages + 1
    other = "followed" if side == "follower" else "follower"
    assert found == [getattr(one, side) for one in sample.follows() if getattr(one, other) == name]
    size = 20 if count else MAX_USERS_PER_PAGE
    assert pages == max(1, -(-len(found) // size))


async def test_unknown_accounts(caller: Caller) -> None:
    gone = next(one.screen_name for one in sample.accounts() if not SocialGraph.exists(one.screen_name))
    for target in (f"{SHOW}?source_screen_name=a&target_screen_name={gone}", f"{FRIENDS}?screen_name={gone}"):
        status, _, body = await caller.get(target)
        assert (status, body) == (404, {"errors": [{"code": 50, "message": "User not found."}]})


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (SHOW, 400, 38),
        (f"{FRIENDS}?screen_name=a&cursor=x", 400, 44),
        ("/1.1/users/show.json", 404, 34),
    ],
)
async def test_wrong_questions(caller: Caller, target: str, status: int, code: int) -> None:
    answered, _, body = await caller.get(target)
    assert (answered, body["errors"][0]["code"]) == (status, code)
    assert (await caller.get(f"{FRIENDS}?screen_name=bfrist"))[0] == 200  # the connection goes on


async def test_only_get(caller: Caller) -> None:
    status, headers, _ = await caller.raw(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused_and_the_connection_closed(caller: Caller, request_: bytes) -> None:
    status, headers, _ = await caller.raw(request_)
    assert (status, headers["connection"]) == (400, "close")


async def test_connection_close_is_honoured(caller: Caller) -> None:
    head = f"GET {FRIENDS}?screen_name=bfrist HTTP/1.1\r\nConnection: close\r\n\r\n"
    status, headers, _ = await caller.raw(head.encode())
    assert (status, headers["connection"]) == (200, "close")
    assert await caller.reader.read() == b""


async def test_rate_limit_is_for_each_caller_and_path() -> None:
    async with StandIn(latency=0.0, jitter=0.0, requests=3, window=3600) as standin:
        caller = await Caller.to(standin)
        target = f"{FRIENDS}?screen_name=bfrist"
        left = [(await caller.get(target))[1]["x-rate-limit-remaining"] for _ in range(3)]
        assert left == ["2", "1", "0"]
        status, headers, body = await caller.get(target)
        assert (status, body["errors"][0]["code"]) == (429, 88)
        assert 1100 < int(headers["retry-after"]) <= 1200
        assert int(headers["x-rate-limit-reset"]) > 0
        assert (await caller.get(target, token="other"))[0] == 200
        assert (await caller.get(f"{FOLLOWERS}?screen_name=bfrist"))[0] == 200
        caller.writer.close()


async def test_latency_is_kept() -> None:
    async with StandIn(latency=0.05, jitter=0.0, requests=0) as standin:
        caller = await Caller.to(standin)
        began = asyncio.get_running_loop().time()
        await caller.get(f"{FRIENDS}?screen_name=bfrist")
        assert asyncio.get_running_loop().time() - began >= 0.05
        caller.writer.close()


async def test_it_ends_with_connections_open() -> None:
    async with StandIn(latency=0.0, jitter=0.0, requests=0) as standin:
        caller = await Caller.to(standin)
        await caller.get(f"{FRIENDS}?screen_name=bfrist")
    assert await caller.reader.read() == b""
    caller.writer.close()


@pytest.mark.parametrize(
    ("switch", "status", "body"),
    [
        ("protected", 401, {"request": FRIENDS, "error": "Not authorized."}),
        ("suspended", 403, {"errors": [{"code": 63, "message": "User has been suspended."}]}),
        ("blocking", 403, {"errors": [{"code": 136, "message": "You have been blocked from viewing this user."}]}),
        ("broken", 500, {"errors": [{"code": 131, "message": "Internal error."}]}),
    ],
)
async def test_accounts_in_trouble(standin: StandIn, caller: Caller, switch: str, status: int, body: Any) -> None:
    setattr(standin.troubles, switch, {"bfrist"})
    answered, _, said = await caller.get(f"{FRIENDS}?screen_name=BFRIST")
    assert (answered, said) == (status, body)
    assert (await caller.get(f"{FRIENDS}?screen_name=RoyBlunt"))[0] == 200
    await standin.answered(status, 1)
    assert standin.answers == {status: 1, 200: 1}


async def test_troubles_of_all_requests(standin: StandIn, caller: Caller) -> None:
    target = f"{FRIENDS}?screen_name=bfrist"
    standin.troubles.refusing = ApiFault.of(420, 88, "Enhance your calm")
    assert (await caller.get(target))[0] == 420
    standin.troubles.down, standin.troubles.down_headers = 503, {"retry-after": "7"}
    status, headers, body = await caller.get(target)
    assert (status, headers["retry-after"], body) == (503, "7", PAGE)

    standin.troubles.down = standin.troubles.refusing = None
    standin.troubles.silent = True
    with pytest.raises(TimeoutError):
        await within(caller.get(target), 0.2)


async def test_the_clock_of_the_api_may_differ() -> None:
    async with StandIn(latency=0.0, jitter=0.0, requests=1) as standin:
        caller = await Caller.to(standin)
        standin.troubles.clock = 3600.0
        _, headers, _ = await caller.get(f"{FRIENDS}?screen_name=bfrist")
        ahead = parsedate_to_datetime(headers["date"]).timestamp() - time.time()
        assert 3590 < ahead < 3610
        assert int(headers["x-rate-limit-reset"]) - time.time() > 3600
        standin.troubles.dated = False
        assert "date" not in (await caller.get(f"{FRIENDS}?screen_name=bfrist"))[1]
        caller.writer.close()


async def test_a_limit_of_the_day(standin: StandIn, caller: Caller) -> None:
    standin.troubles.daily = 2
    target = f"{FRIENDS}?screen_name=bfrist"
    left = [(await caller.get(target))[1]["x-app-limit-24hour-remaining"] for _ in range(2)]
    assert left == ["1", "0"]
    assert (await caller.get(f"{FOLLOWERS}?screen_name=bfrist"))[0] == 429
    assert (await caller.get(target, token="other"))[0] == 200
