"""The library against a real server that follows a script: requests, buckets, results."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from coordinator.errors import Refused

from .conftest import NewClient
from .scripted import LIMITS, Peer, ScriptedServer, alongside, grant_bucket


async def test_register_join_services(server: ScriptedServer, new_client: NewClient) -> None:
    async def script() -> None:
        peer = await server.work(registered=False)
        assert peer.hello["protocol"] == 1
        assert peer.hello["client_id"] == "ada"
        assert len(peer.hello["secret"]) == 64
        register = await peer.read("register")
        assert set(register) == {"type", "ref", "screen_name", "enrolment_token"}
        await peer.answer(register, "registered", client_id="ada", services=[])
        join = await peer.read("join")
        assert (join["service"], join["profile"]) == ("dm_check", {"source": "me", "source_id": None})
        await peer.answer(join, "joined", service="dm_check")
        await peer.answer(await peer.read("services"), "services", services=[])
        await peer.refuse(await peer.read("leave"), "unknown_service", detail={"a": 1}, retry_after=2)

    async with new_client() as client, asyncio.TaskGroup() as group:
        group.create_task(script())
        assert not (await client.welcome()).registered
        await client.register("ada", "token")
        await client.join("dm_check", {"source": "me", "source_id": None})
        assert await client.services() == []
        with pytest.raises(Refused) as refused:
            await client.leave("nothing")
        assert (refused.value.code, refused.value.detail) == ("unknown_service", {"a": 1})
        assert refused.value.retry_after == 2


async def test_settled_items_go_in_one_final_submit(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        assert [one["key"] for one in bucket.items] == ["key1", "key2"]
        await bucket.settle(1, dm="DM")
        with pytest.raises(ValueError, match="not among"):
            await bucket.settle(9, dm="DM")

        await bucket.settle(2, dm="NON_DM")
        submit = await peer.read("submit")
        assert submit["results"] == [{"dm": "DM", "item": 1}, {"dm": "NON_DM", "item": 2}]
        assert (submit["bucket_id"], submit["claim"], submit["final"]) == ("b", 3, True)
        await peer.stored(submit)

        ask = await peer.read("ask")  # the place is free for the next one
        assert ask["count"] == 1
        await peer.asked(ask)

        assert bucket.ended.is_set()
        assert not bucket.lost.is_set()
        peer.carry_on()


async def test_parts_go_when_they_have_waited(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client(flush_every=0.01) as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        submit = await peer.read("submit")
        assert (submit["results"], submit["final"]) == ([{"dm": "DM", "item": 1}], False)
        await peer.stored(submit, remaining=1)
        bucket.skip(2)
        submit = await peer.read("submit")
        assert (submit["results"], submit["final"]) == ([], True)
        await peer.stored(submit, remaining=1)
        await bucket.ended.wait()
        peer.carry_on()


async def test_asks_ahead_and_withdraws(server: ScriptedServer, new_client: NewClient) -> None:
    peer: Peer
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check", concurrency=2)
        ask = await peer.read("ask")
        assert ask["count"] == 2
        await peer.asked(ask)
        await peer.bucket("b", 1, 1)
        bucket = await anext(stream)

        results = [{"item": 1, "dm": "DM"}]

        async def script() -> None:
            await peer.stored(await peer.read("submit"))

        stored = await alongside(bucket.submit(results), script())
        assert stored.stored == 1

        ask = await peer.read("ask")
        assert ask["count"] == 1
        await peer.asked(ask, pending=2)
        await peer.bucket("c", 1, 2)
        await anext(stream)
        peer.carry_on()

    withdrawn, given_back = sorted(peer.said, key=lambda one: str(one["type"]))
    assert (withdrawn["type"], withdrawn["count"]) == ("ask", 0)
    assert (given_back["results"], given_back["final"]) == ([], True)


async def test_bucket_lost_is_heard(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        bucket = await grant_bucket(peer, stream, "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        await peer.say("bucket_lost", bucket_id="b", claim=2, reason="released")  # of an older claim
        await peer.say("something_new", a=1)
        await peer.say("bucket_lost", bucket_id="b", claim=3, reason="revoked")
        await bucket.lost.wait()
        assert bucket.lost.reason == "revoked"
        assert bucket.ended.is_set()
        bucket = await grant_bucket(peer, stream, "c", 1, 5)
        assert bucket.bucket_id == "c"
        peer.carry_on()


async def test_unavailable_is_tried_again(server: ScriptedServer, new_client: NewClient) -> None:
    loop = asyncio.get_running_loop()
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1)
        await bucket.settle(1, dm="DM")
        first = await peer.read("submit")

        began = loop.time()
        await peer.refuse(first, "unavailable", retry_after=0.3)
        second = await peer.read("submit")
        assert loop.time() - began >= 0.3
        assert second["results"] == first["results"]
        await peer.refuse(second, "rate_limited", retry_after=0.01)
        await peer.stored(await peer.read("submit"))
        await bucket.ended.wait()
        peer.carry_on()


async def test_bad_results_are_dropped_and_the_good_ones_stored(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)

        async def script() -> None:
            submit = await peer.read("submit")
            await peer.refuse(submit, "bad_result", detail={"errors": [{"item": 1, "reason": "dm"}]})
            submit = await peer.read("submit")
            assert submit["results"] == [{"dm": "DM", "item": 2}]
            await peer.stored(submit, remaining=1)

        async with asyncio.TaskGroup() as group:
            group.create_task(script())
            with pytest.raises(Refused, match="bad_result"):
                await bucket.submit([{"item": 1, "dm": "X"}, {"item": 2, "dm": "DM"}])

        assert bucket.ended.is_set()
        peer.carry_on()


async def test_conflict_does_not_cost_the_others(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        await bucket.settle(2, dm="DM")
        await peer.refuse(await peer.read("submit"), "conflict")
        first = await peer.read("submit")
        assert [result["item"] for result in first["results"]] == [1]
        await peer.refuse(first, "conflict")
        second = await peer.read("submit")
        assert ([result["item"] for result in second["results"]], second["final"]) == ([2], True)
        await peer.stored(second)
        await bucket.ended.wait()
        peer.carry_on()


async def test_results_larger_than_a_message_go_in_parts(server: ScriptedServer, new_client: NewClient) -> None:
    limits = {**LIMITS, "max_message_bytes": 2048}
    accounts = [{"key": f"account{n}"} for n in range(300)]
    async with new_client() as client:
        peer = await server.work(limits=limits)
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1)
        await bucket.settle(1, accounts=accounts, complete=True)
        got: list[Any] = []

        while True:
            submit = await peer.read("submit")
            assert len(json.dumps(submit, separators=(",", ":"))) <= 2048
            (result,) = submit["results"]
            got += result["accounts"]
            assert result["complete"] == submit["final"]
            await peer.stored(submit, remaining=int(not submit["final"]))
            if submit["final"]:
                break

        assert got == accounts
        peer.carry_on()


async def test_release_sends_what_is_known_first(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")

        async def script() -> None:
            submit = await peer.read("submit")
            assert not submit["final"]
            await peer.stored(submit, remaining=1)
            release = await peer.read("release")
            assert (release["bucket_id"], release["claim"], release["reason"]) == ("b", 3, "tired")
            await peer.answer(release, "released", bucket_id="b", remaining=1)

        await alongside(bucket.release("tired"), script())
        assert bucket.ended.is_set()
        peer.carry_on()


async def test_paused_service_is_not_asked(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1)
        await peer.say("service", service="dm_check", state="revoked")
        await bucket.settle(1, dm="DM")
        await peer.stored(await peer.read("submit"))
        await bucket.ended.wait()
        await peer.say("service", service="dm_check", state="active")
        assert (await peer.read("ask"))["count"] == 1
        peer.carry_on()


async def test_idle_client_activates_and_asks_again(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        await peer.refuse(await peer.read("ask"), "client_deactivated", detail={"reason": "idle"})
        await peer.answer(await peer.read("activate"), "activated", service="dm_check")
        await peer.refuse(await peer.read("ask"), "not_joined")
        with pytest.raises(Refused, match="not_joined"):
            await anext(stream)
        await peer.asked(await peer.read("ask"))
        peer.carry_on()
