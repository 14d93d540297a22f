"""A client that was cut off gets its buckets back, as far as nobody else has them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.store import claims, clients, recollects
from coordinator.store.claims import EndReason
from tests.store.bench import Bench, submit


async def test_what_was_cut_off_comes_back_under_a_new_claim_as_if_nothing_had_been(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, 3)
    await bench.settle_one(submit(mine, mine.items[:1], final=False))
    before = await bench.member(ada)
    await bench.cut_off(ada)
    again = await bench.worker("ada")
    (back,) = await bench.recollect(again)
    assert (back.former, back.taken_from) == (mine.claim, None)
    assert back.claimed.claim > mine.claim
    assert (back.claimed.settled, back.claimed.attempts, back.claimed.session_id) == ("100", 0, again.session_id)
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["attempts"], row["claim_id"]) == ("claimed", 0, back.claimed.claim)
    assert await bench.ended(mine.claim) == "recollected"
    after = await bench.member(ada)
    for column in ("streak", "wait_until", "disconnects"):
        assert after[column] == before[column]
    assert await bench.value("SELECT count(*) FROM return_block") == 0
    assert await bench.recollect(again) == []


async def test_the_refund_leaves_what_earlier_givebacks_cost(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for _ in range(3):
        await bench.release(await bench.held(ada))
        await bench.forgive()
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '1 hour'")
    before = await bench.member(ada)
    mine = await bench.held(ada)
    await bench.cut_off(ada)
    assert len(await bench.recollect(await bench.worker("ada"))) == 1
    assert (await bench.member(ada))["streak"] == before["streak"] == 3
    assert (await bench.of(mine.bucket_id))["state"] == "claimed"


async def test_the_refund_of_one_bucket_leaves_its_earlier_givebacks(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.release(mine)
    await bench.execute("UPDATE return_block SET until = now() - interval '1 second'")
    await bench.execute("UPDATE membership SET wait_until = NULL")
    (again,) = await bench.claim(ada)
    assert again.bucket_id == mine.bucket_id
    await bench.cut_off(ada)
    assert await bench.value("SELECT times FROM return_block") == 2
    assert len(await bench.recollect(await bench.worker("ada"))) == 1
    assert await bench.value("SELECT times FROM return_block") == 1
    assert await bench.value("SELECT until <= now() + interval '30 seconds' FROM return_block")


async def test_taking_a_bucket_over_does_not_start_its_time_anew(bench: Bench) -> None:
    """Else two sessions that pass it to and fro would hold it for ever."""
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.execute("UPDATE bucket SET touched_at = touched_at - interval '1 hour'")
    held = await bench.of(mine.bucket_id)
    also = await bench.worker("ada")
    (back,) = await bench.recollect(also, [mine.bucket_id])
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["touched_at"], back.claimed.dead) == ("claimed", held["touched_at"], False)
    await bench.execute("UPDATE bucket SET state = 'dead'")
    (back,) = await bench.recollect(await bench.worker("ada"), [mine.bucket_id])
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["touched_at"], back.claimed.dead) == ("dead", held["touched_at"], True)


async def test_a_bucket_set_aside_by_the_disconnect_is_whole_again(bench: Bench) -> None:
    ada = await bench.of_standing("ada")
    mine = await bench.held(ada, attempts=2)
    await bench.cut_off(ada)
    assert (await bench.of(mine.bucket_id))["split_at"] is not None
    (back,) = await bench.recollect(await bench.worker("ada"))
    row = await bench.of(mine.bucket_id)
    assert (row["split_at"], row["attempts"], back.claimed.attempts) == (None, 2, 2)
    assert await bench.value("SELECT count(*) FROM claim WHERE spent AND client_id = 'ada'") == 0


async def test_who_took_others_meanwhile_pays_for_the_disconnect_though_it_gets_its_own_back(bench: Bench) -> None:
    """Else it could hold more each time, since what is regranted does not count against its limit."""
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.cut_off(ada)
    await bench.bucket(1, age=9)
    await bench.execute("DELETE FROM return_block")
    again = await bench.worker("ada")
    (other,) = await bench.claim(again)
    assert other.bucket_id != mine.bucket_id
    (back,) = await bench.recollect(again)
    assert back.claimed.bucket_id == mine.bucket_id
    assert (await bench.member(ada))["streak"] == 1


@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [("settled = 0", "settled = 3"), ("settled = 3", "taken_back = 3"), ("settled = 0", "settled = 0")],
)
async def test_its_block_of_addresses_is_refunded_what_it_paid_whatever_was_counted_since(
    bench: Bench, before: str, meanwhile: str
) -> None:
    """A class that had worked for less than a second was cut off, came back, and newcomers behind it waited minutes."""
    ada = replace(await bench.worker("ada"), address="203.0.113.9")
    async with bench.database.connection() as db:
        await clients.begin_session(db, ada.session, bench.boot)
    await bench.execute(
        "INSERT INTO newcomer_block (block, service_id, streak, last_at) VALUES ($1, $2, 5, now())",
        ada.address,
        bench.service,
    )
    await bench.held(ada)
    await bench.execute(f"UPDATE membership SET {before}")
    await bench.cut_off(ada)
    await bench.execute(f"UPDATE membership SET {meanwhile}")
    assert len(await bench.recollect(await bench.worker("ada"))) == 1
    assert await bench.value("SELECT streak FROM newcomer_block") == 5


async def test_after_the_window_it_is_too_late(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.cut_off(ada)
    await bench.execute("UPDATE claim SET ended_at = ended_at - interval '121 s' WHERE claim_id = $1", mine.claim)
    assert await bench.recollect(await bench.worker("ada")) == []


async def test_what_another_has_taken_or_even_had_for_a_moment_is_gone(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    held, returned = await bench.held(ada, age=9), await bench.held(ada)
    await bench.cut_off(ada)
    got = await bench.claim(bob, bob)
    assert {one.bucket_id for one in got} == {held.bucket_id, returned.bucket_id}
    await bench.release(next(one for one in got if one.bucket_id == returned.bucket_id))
    assert await bench.recollect(await bench.worker("ada"), [held.bucket_id, returned.bucket_id]) == []
    assert (await bench.of(held.bucket_id))["client_id"] == "bob"


@pytest.mark.parametrize(
    "way",
    [
        claims.RELEASED,
        claims.TAKEN,
        claims.DEAD,
        claims.REVOKED,
        claims.DEACTIVATED,
        claims.LEFT,
        claims.UNREGISTERED,
        claims.UNDELIVERED,
    ],
    ids=lambda way: way.ended,
)
async def test_what_ended_otherwise_does_not_come_back(bench: Bench, way: EndReason) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    await bench.release(mine, way)
    assert await bench.recollect(await bench.worker("ada"), [mine.bucket_id]) == []


@pytest.mark.parametrize("way", [claims.DRAINED, claims.CRASHED], ids=lambda way: way.ended)
async def test_what_a_node_lost_comes_back_without_a_refund(bench: Bench, way: EndReason) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, attempts=1)
    await bench.release(mine, way)
    (back,) = await bench.recollect(await bench.worker("ada"))
    assert back.claimed.bucket_id == mine.bucket_id
    assert (await bench.of(mine.bucket_id))["attempts"] == 1


async def test_what_was_submitted_as_final_does_not_come_back(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, 3)
    await bench.settle_one(submit(mine, mine.items[:1]))
    assert await bench.recollect(await bench.worker("ada"), [mine.bucket_id]) == []


async def test_what_is_kept_for_a_drained_nodes_client_comes_back(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    async with bench.database.connection() as db:
        await recollects.keep_for_reconnect(db, [ada.session_id], 60)
    (back,) = await bench.recollect(await bench.worker("ada"))
    assert (back.claimed.bucket_id, back.taken_from) == (mine.bucket_id, None)
    row = await bench.of(mine.bucket_id)
    assert (row["kept_until"], row["attempts"]) == (None, 0)


async def test_a_named_bucket_is_taken_over_from_another_session_of_the_client(bench: Bench) -> None:
    one, two, bob = await bench.worker("ada"), await bench.worker("ada"), await bench.worker("bob")
    named, other, theirs = await bench.held(one), await bench.held(one), await bench.held(bob)
    (back,) = await bench.recollect(two, [named.bucket_id, theirs.bucket_id])
    assert (back.claimed.bucket_id, back.former, back.taken_from) == (named.bucket_id, named.claim, one.session_id)
    assert (await bench.of(other.bucket_id))["session_id"] == one.session_id
    assert (await bench.of(theirs.bucket_id))["session_id"] == bob.session_id
    assert [freed.bucket_id for freed in await bench.cut_off(one)] == [other.bucket_id]
    assert [one.claimed.bucket_id for one in await bench.recollect(two, [named.bucket_id])] == [other.bucket_id]


async def test_nothing_comes_back_in_a_service_that_was_left_or_revoked(bench: Bench) -> None:
    ada = await bench.worker("ada")
    await bench.held(ada)
    await bench.cut_off(ada)
    for change, undo in (
        ("membership SET joined = false", "membership SET joined = true"),
        ("membership SET inactive = 'admin'", "membership SET inactive = NULL"),
        ("service SET state = 'revoked'", "service SET state = 'active'"),
    ):
        await bench.execute(f"UPDATE {change}")
        assert await bench.recollect(ada) == []
        await bench.execute(f"UPDATE {undo}")
    assert len(await bench.recollect(await bench.worker("ada"))) == 1


async def test_items_that_were_settled_or_deleted_are_not_given_back(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, 3)
    await bench.cut_off(ada)
    await bench.execute("UPDATE bucket SET settled = B'010' WHERE bucket_id = $1", mine.bucket_id)
    (back,) = await bench.recollect(await bench.worker("ada"))
    assert back.claimed.settled == "010"
    assert await bench.value("SELECT given::text FROM claim WHERE claim_id = $1", back.claimed.claim) == "101"
