"""The library when its connection, its server or its own process ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator.client import SessionEnded
from coordinator.client.spool import Spool

from .conftest import NewClient
from .scripted import ScriptedServer, grant_bucket


async def test_regrant_goes_on_under_the_new_claim(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.work()
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2, 3, 4)
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
        bucket = await grant_bucket(peer, client.buckets("dm_check"), "b", 3, 1, 2)
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


@pytest.mark.parametrize("code", [4500, 4501, 4502, 4503])
async def test_final_close_ends(server: ScriptedServer, new_client: NewClient, code: int) -> None:
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        bucket = await grant_bucket(peer, stream, "b", 3, 1)
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


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (200, "that is no coordinator"),
        (301, "sends to https://elsewhere/"),
        (400, "answered HTTP 400"),
        (401, "does not let"),
        (403, "does not let"),
        (404, "no coordinator at this path"),
    ],
)
async def test_what_is_no_coordinator_is_a_wrong_address_only_before_a_welcome(
    server: ScriptedServer, new_client: NewClient, status: int, words: str
) -> None:
    """An ingress answers so for a server that is being deployed anew, and no volunteer is to end for that."""
    refusal = status, {"Location": "https://elsewhere/"}
    server.refusals = [refusal]
    async with new_client() as client:
        with pytest.raises(SessionEnded, match=f"HTTP {status}.*{words}|{words}"):
            await client.welcome()

    async with new_client() as client:
        peer = await server.work()
        await client.welcome()
        server.refusals = [refusal] * 5
        await peer.close(1012)
        await server.work(holds=[])
    assert server.handshakes == 1 + 1 + 5 + 1


async def test_an_unclear_hello_is_final_only_before_a_welcome(server: ScriptedServer, new_client: NewClient) -> None:
    async with new_client() as client:
        peer = await server.peer()
        await peer.refuse(peer.hello, "bad_message")
        await peer.close(1000)
        with pytest.raises(SessionEnded, match="refused hello"):
            await client.welcome()

    async with new_client() as client:
        peer = await server.work()
        await peer.close(1012)
        peer = await server.peer()
        await peer.refuse(peer.hello, "bad_message")
        await peer.close(1000)
        await server.work(holds=[])


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
