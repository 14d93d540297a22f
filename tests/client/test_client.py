"""The library against a real server that follows a script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import BucketStream, Client, HeldBucket, SessionEnded
from coordinator.client.spool import Spool
from coordinator.errors import Refused

from .scripted import LIMITS, Peer, ScriptedServer

NewClient = Callable[..., Client]


async def give(peer: Peer, stream: BucketStream, name: str, claim: int, *items: int) -> HeldBucket:
    """Serve the client's ask with one bucket."""
    await peer.asked(await peer.read("ask"))
    await peer.bucket(name, claim, *items)
    return await anext(stream)


async def alongside(request: Awaitable[Any], script: Awaitable[Any]) -> Any:
    """The outcome of a request while the server's side of it runs."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(script))
        return await request


async def _run(script: Awaitable[Any]) -> None:
    await script


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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)
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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)
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


async def test_regrant_goes_on_under_the_new_claim(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2, 3, 4)
        await bucket.settle(1, dm="DM")
        await bucket.settle(2, dm="DM")
        task = asyncio.create_task(bucket.submit(final=False))
        await peer.read("submit")  # item 1 was stored, says the regrant; the answer is never sent
        await peer.cut()

        await bucket.settle(3, dm="UNKNOWN")
        peer = await server.work(
            holds=[{"bucket_id": "b", "claim": 3}], recollected={"regranted": ["b"], "dropped": []}
        )
        await peer.bucket("b", 5, 2, 3, 4)
        submit = await peer.read("submit")
        assert (submit["claim"], submit["final"]) == (5, False)

        assert [one["item"] for one in submit["results"]] == [2, 3]
        await peer.stored(submit, remaining=1)
        await task
        assert not bucket.lost.is_set()
        assert bucket.unsettled == {4}
        assert [one["item"] for one in bucket.items] == [2, 3, 4]
        await bucket.settle(4, dm="DM")

        last = await peer.read("submit")
        assert (last["claim"], last["final"]) == (5, True)
        await peer.stored(last)
        await bucket.ended.wait()
        peer.carry_on()


async def test_dropped_bucket_is_lost_after_a_last_word(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        await peer.cut()
        peer = await server.work(
            holds=[{"bucket_id": "b", "claim": 3}], recollected={"regranted": [], "dropped": ["b"]}
        )

        await bucket.lost.wait()
        submit = await peer.read("submit", "ask")
        while submit["type"] == "ask":
            await peer.asked(submit)
            submit = await peer.read("submit", "ask")

        assert (submit["claim"], submit["final"]) == (3, False)
        await peer.refuse(submit, "stale_claim")
        await bucket.ended.wait()
        await bucket.settle(2, dm="DM")  # in vain, and no error
        assert client.held == []
        peer.carry_on()


async def test_empty_holds_after_a_cut(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work(holds=None)
        await client.welcome()
        await peer.cut()
        await server.work(holds=[])


async def test_bucket_lost_is_heard(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        bucket = await give(peer, stream, "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        await peer.say("bucket_lost", bucket_id="b", claim=2, reason="released")  # of an older claim
        await peer.say("something_new", a=1)
        await peer.say("bucket_lost", bucket_id="b", claim=3, reason="revoked")
        await bucket.lost.wait()
        assert bucket.lost.reason == "revoked"
        assert bucket.ended.is_set()
        bucket = await give(peer, stream, "c", 1, 5)
        assert bucket.bucket_id == "c"
        peer.carry_on()


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503])
async def test_final_close_ends(server: ScriptedServer, new_client: NewClient, code: int) -> None:
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        bucket = await give(peer, stream, "b", 3, 1)
        await peer.close(code, "because")
        with pytest.raises(SessionEnded) as ended:
            await anext(stream)
        assert (ended.value.code, ended.value.final) == (code, True)
        assert "because" in str(ended.value)
        assert bucket.lost.is_set()
        with pytest.raises(SessionEnded):
            await client.services()
        with pytest.raises(SessionEnded):
            await bucket.submit([])

    assert server.handshakes == 1


async def test_refused_hello_ends(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.peer()
        await peer.refuse(peer.hello, "unauthorized")
        await peer.close(4500)
        with pytest.raises(SessionEnded) as ended:
            await client.welcome()
        assert (ended.value.code, ended.value.final) == (4500, True)


@pytest.mark.parametrize("code", [1001, 1012, 1013, 4408, 4409, 4429])
async def test_other_closes_reconnect(
    server: ScriptedServer, new_client: NewClient, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.client.session._RETRY_AFTER_CLOSE", {})
    async with new_client() as client:
        peer = await server.work()
        await client.welcome()
        await peer.close(code)
        await server.work(holds=[])


async def test_handshake_refusals(server: ScriptedServer, new_client: NewClient) -> None:
    server.refusals = [(503, {}), (429, {"Retry-After": "0"})]
    async with new_client() as client:
        await server.work()
        await client.welcome()
    assert server.handshakes == 3
    server.refusals = [(403, {})]
    async with new_client() as client:
        with pytest.raises(SessionEnded, match="403"):
            await client.welcome()
    assert server.handshakes == 4


async def test_drain_then_back_after_retry_after(server: ScriptedServer, new_client: NewClient) -> None:
    loop = asyncio.get_running_loop()
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check", concurrency=2)
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 3, 1, 2)
        bucket = await anext(stream)
        await bucket.settle(1, dm="DM")
        await peer.say("drain", retry_after=0.4, reason="restart")

        submit = await peer.read("submit")  # and no ask
        assert not submit["final"]
        await peer.stored(submit, remaining=1)
        began = loop.time()
        await peer.close(1012)
        peer = await server.work(
            holds=[{"bucket_id": "b", "claim": 3}], recollected={"regranted": ["b"], "dropped": []}
        )

        assert loop.time() - began >= 0.4
        await peer.bucket("b", 4, 2)
        await bucket.settle(2, dm="DM")
        ask, submit = sorted(
            [await peer.read("ask", "submit"), await peer.read("ask", "submit")], key=lambda one: one["type"]
        )
        assert (ask["count"], submit["claim"]) == (1, 4)

        await peer.asked(ask)
        await peer.stored(submit)
        await bucket.ended.wait()
        peer.carry_on()


async def test_unavailable_is_tried_again(server: ScriptedServer, new_client: NewClient) -> None:
    loop = asyncio.get_running_loop()
    async with new_client() as client:
        peer = await server.work()
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1)
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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)

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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)
        await bucket.settle(1, dm="DM")
        await bucket.settle(2, dm="DM")
        await peer.refuse(await peer.read("submit"), "conflict")
        one = await peer.read("submit")
        assert [each["item"] for each in one["results"]] == [1]
        await peer.refuse(one, "conflict")
        two = await peer.read("submit")
        assert ([each["item"] for each in two["results"]], two["final"]) == ([2], True)
        await peer.stored(two)
        await bucket.ended.wait()
        peer.carry_on()


async def test_results_larger_than_a_message_go_in_parts(server: ScriptedServer, new_client: NewClient) -> None:
    limits = {**LIMITS, "max_message_bytes": 2048}
    accounts = [{"key": f"account{n}"} for n in range(300)]
    async with new_client() as client:
        peer = await server.work(limits=limits)
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1)
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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1, 2)
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
        bucket = await give(peer, client.buckets("dm_check"), "b", 3, 1)
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


async def test_spooled_results_survive_a_crash(server: ScriptedServer, new_client: NewClient, tmp_path: Path) -> None:
    first = Spool.open(tmp_path / "spool", "ada")
    first.add_bucket("old", "dm_check", 7)
    await first.add_result_durably("old", 1, b'{"item":1,"dm":"DM"}', True)
    first.add_bucket("back", "dm_check", 2)
    await first.add_result_durably("back", 5, b'{"item":5,"dm":"DM"}', True)
    await first.add_result_durably("back", 6, b'{"item":6,"dm":"DM"}', True)
    first.close()

    holds = [{"bucket_id": "old", "claim": 7}, {"bucket_id": "back", "claim": 2}]
    async with new_client() as client:
        peer = await server.work(holds=holds, recollected={"regranted": ["back"], "dropped": ["old"]})
        last_word = await peer.read("submit")
        assert (last_word["bucket_id"], last_word["claim"]) == ("old", 7)
        assert last_word["results"] == [{"item": 1, "dm": "DM"}]
        await peer.refuse(last_word, "not_owner")
        await peer.bucket("back", 3, 6, 8)  # 5 was stored before the crash
        await client.welcome()

        stream = client.buckets("dm_check")
        bucket = await anext(stream)
        assert [one["item"] for one in bucket.items] == [8]
        await bucket.settle(8, dm="NON_DM")
        submit = await peer.read("submit")
        assert submit["claim"] == 3
        assert [one["item"] for one in submit["results"]] == [6, 8]

        await peer.stored(submit)
        await bucket.ended.wait()
        await peer.asked(await peer.read("ask"))
        peer.carry_on()

    again = Spool.open(tmp_path / "spool", "ada")
    assert again.buckets == {}
    assert again.path.stat().st_size == 0
    again.close()
