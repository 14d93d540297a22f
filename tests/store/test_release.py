"""The ways back to the pool, what each costs, and what the clock does."""

from __future__ import annotations

import pytest

from coordinator.store import claim_lookup, claims, nodes, overdue, recollects
from coordinator.store.claims import EndReason
from tests.store.bench import WINDOW, Bench, submit

WAYS = [
    claims.CUT_OFF,
    claims.RELEASED,
    claims.GIVEN_UP,
    claims.DEAD,
    claims.UNDELIVERED,
    claims.DRAINED,
    claims.CRASHED,
    claims.REVOKED,
    claims.DEACTIVATED,
    claims.LEFT,
    claims.UNREGISTERED,
    claims.TAKEN,
    claims.EXPIRED,
]


KILL = "UPDATE bucket SET state = 'dead', touched_at = now() - interval '1 hour' WHERE bucket_id = $1"


def test_every_way_back_is_looked_at_here() -> None:
    assert {way.ended for way in vars(claims).values() if isinstance(way, EndReason)} == {way.ended for way in WAYS}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.ended)
async def test_each_way_back(bench: Bench, way: EndReason) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada, 4)
    await bench.settle_one(submit(mine, mine.items[:1], final=False))
    (freed,) = await bench.release(mine, way)
    assert (freed.bucket_id, freed.claim, freed.client_id, freed.session_id, freed.remaining) == (
        mine.bucket_id, mine.claim, "ada", ada.session_id, 3,
    )  # fmt: skip
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["bits"], row["claim_id"], row["split_at"]) == ("ready", "1000", mine.claim, None)
    failed = way.ended in ("cut_off", "dead", "partial", "expired")
    assert row["attempts"] == (1 if failed else 0)
    assert await bench.ended(mine.claim) == way.ended
    kept_off = await bench.rows(
        "SELECT client_id, times, extract(epoch FROM until - now())::float8 AS s FROM return_block"
    )
    costs = way.ended in ("cut_off", "released", "partial", "dead", "left", "unregistered", "expired")
    if costs:
        assert [(one["client_id"], one["times"]) for one in kept_off] == [("ada", 1)]
        assert kept_off[0]["s"] == pytest.approx(30, abs=5)
    else:
        assert kept_off == []
    member = await bench.member(ada)
    assert (member["streak"], member["wait_until"]) == (int(costs), None)
    assert (member["given_back"], member["disconnects"], member["dead"]) == (
        int(way.cost == "given_back"), int(way.ended == "cut_off"), int(way.cost == "dead"),
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.ended)
async def test_releasing_again_changes_nothing(bench: Bench, way: EndReason) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    assert len(await bench.release(mine, way)) == 1
    before = await bench.of(mine.bucket_id)
    assert await bench.release(mine, way) == []
    assert await bench.cut_off(ada) == []
    after = await bench.of(mine.bucket_id)
    assert {**before, "due": None} == {**after, "due": None}
    assert (await bench.member(ada))["streak"] <= 1


async def test_the_former_holder_cannot_release_what_another_holds(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    mine = await bench.held(ada)
    await bench.release(mine)
    (theirs,) = await bench.claim(bob)
    assert await bench.release(mine) == []
    assert await bench.cut_off(ada) == []
    row = await bench.of(mine.bucket_id)
    assert (row["client_id"], row["claim_id"]) == ("bob", theirs.claim)


async def test_the_end_of_one_session_leaves_what_another_session_of_its_client_holds(bench: Bench) -> None:
    one, two = await bench.worker("ada"), await bench.worker("ada")
    first, second = await bench.held(one), await bench.held(two)
    assert [freed.bucket_id for freed in await bench.cut_off(one)] == [first.bucket_id]
    assert (await bench.of(second.bucket_id))["session_id"] == two.session_id


@pytest.mark.parametrize("way", [claims.CUT_OFF, claims.DEAD], ids=lambda way: way.ended)
async def test_the_third_failed_attempt_sets_a_bucket_aside_until_nobody_can_recollect_it(
    bench: Bench, way: EndReason
) -> None:
    ada = await bench.of_standing("ada")
    mine = await bench.held(ada, attempts=1)
    await bench.release(mine, way)
    await bench.forgive()
    assert (await bench.of(mine.bucket_id))["split_at"] is None
    (again,) = await bench.claim(ada)
    assert again.attempts == 2
    await bench.release(again, way)
    await bench.forgive()
    row = await bench.of(mine.bucket_id)
    assert row["attempts"] == 3
    assert row["due"] == pytest.approx(WINDOW, abs=5)
    assert await bench.claim(ada) == []


@pytest.mark.parametrize("way", [claims.CUT_OFF, claims.DEAD, claims.GIVEN_UP], ids=lambda way: way.ended)
async def test_whoever_never_settled_anything_spends_no_attempts(bench: Bench, way: EndReason) -> None:
    await bench.bucket(3)
    for n in range(8):
        (mine,) = await bench.claim(await bench.worker(f"throwaway{n}"))
        await bench.release(mine, way)
    row = await bench.of(mine.bucket_id)
    assert (row["attempts"], row["split_at"]) == (8, None)


async def test_one_client_alone_cuts_up_nothing_however_often_it_fails(bench: Bench) -> None:
    ada, bob = await bench.of_standing("ada"), await bench.of_standing("bob")
    await bench.bucket(3)
    for worker in (ada, ada, ada, ada, ada, bob):
        (mine,) = await bench.claim(worker)
        await bench.release(mine, claims.CUT_OFF)
        await bench.forgive()
        assert ((await bench.of(mine.bucket_id))["split_at"] is None) == (worker is ada)


async def test_giving_the_same_bucket_back_keeps_it_away_twice_as_long_each_time_up_to_an_hour(bench: Bench) -> None:
    ada = await bench.worker("ada")
    await bench.bucket(1)
    seconds = []
    for _ in range(9):
        await bench.execute("UPDATE return_block SET until = now()")
        await bench.execute("UPDATE membership SET wait_until = NULL")
        (mine,) = await bench.claim(ada)
        await bench.release(mine)
        seconds.append(await bench.value("SELECT extract(epoch FROM until - now())::float8 FROM return_block"))
    assert seconds == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600], abs=5)


async def test_giving_back_in_a_row_makes_the_client_wait_longer_and_longer(bench: Bench) -> None:
    ada = await bench.worker("ada")
    waits = []
    for _ in range(11):
        mine = await bench.held(ada)
        await bench.release(mine)
        await bench.execute("DELETE FROM return_block")
        waits.append((await bench.member(ada))["wait"] or 0)
        await bench.execute("UPDATE membership SET wait_until = NULL")
        await bench.execute("UPDATE bucket SET rank_at = rank_at + interval '1 hour'")
    assert waits == pytest.approx([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300], abs=0.9)


async def test_settling_something_ends_the_row_of_givebacks(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for settle in (bench.settle, bench.settle_one):
        await bench.execute("UPDATE membership SET streak = 5, wait_until = NULL")
        mine = await bench.held(ada)
        await bench.execute("UPDATE membership SET wait_until = now() + interval '1 minute'")
        await settle(submit(mine))
        member = await bench.member(ada)
        assert (member["streak"], member["wait_until"]) == (0, None)


async def test_cutting_off_while_holding_many_counts_once(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for _ in range(3):
        await bench.held(ada)
    await bench.cut_off(ada)
    member = await bench.member(ada)
    assert (member["streak"], member["disconnects"]) == (1, 1)


async def test_at_the_end_of_a_session_what_was_never_delivered_costs_nothing(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine, lost = await bench.held(ada), await bench.held(ada)
    async with bench.database.connection() as db:
        freed = await claims.release_session(
            db, ada.client_id, ada.session_id, claims.CUT_OFF, WINDOW, [mine.bucket_id]
        )
    assert {one.bucket_id for one in freed} == {mine.bucket_id, lost.bucket_id}
    assert [(await bench.of(one.bucket_id))["attempts"] for one in (mine, lost)] == [1, 0]
    assert [await bench.ended(one.claim) for one in (mine, lost)] == ["cut_off", "undelivered"]
    assert await bench.rows("SELECT bucket_id FROM return_block") == [{"bucket_id": mine.bucket_id}]
    member = await bench.member(ada)
    assert (member["streak"], member["disconnects"]) == (1, 1)


async def test_the_end_of_a_session_that_was_delivered_nothing_costs_nothing(bench: Bench) -> None:
    ada = await bench.worker("ada")
    lost = await bench.held(ada, attempts=2)
    async with bench.database.connection() as db:
        await claims.release_session(db, ada.client_id, ada.session_id, claims.CUT_OFF, WINDOW, [])
    row = await bench.of(lost.bucket_id)
    assert (row["state"], row["attempts"], row["split_at"]) == ("ready", 2, None)
    member = await bench.member(ada)
    assert (member["streak"], member["disconnects"], member["wait_until"]) == (0, 0, None)


async def test_freeing_all_of_a_client_or_of_a_service(bench: Bench) -> None:
    other = await Bench.make(bench.database, "other")
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    await other.worker("ada")
    mine, mine_too, theirs = await bench.held(ada), await bench.held(ada), await bench.held(bob)
    elsewhere = await other.held(ada)
    async with bench.database.connection() as db:
        freed = await claims.release_client(db, ada.client_id, bench.service, claims.LEFT, WINDOW)
        assert {one.bucket_id for one in freed} == {mine.bucket_id, mine_too.bucket_id}
        freed = await claims.release_client(db, ada.client_id, None, claims.UNREGISTERED, WINDOW)
        assert {one.bucket_id for one in freed} == {elsewhere.bucket_id}
        freed = await claims.release_service(db, bench.service, claims.REVOKED)
        assert {one.bucket_id for one in freed} == {theirs.bucket_id}
    assert await bench.ended(theirs.claim) == "revoked"


async def test_the_end_of_a_node_frees_what_its_sessions_held_but_not_what_is_kept(bench: Bench) -> None:
    ada, bob = await bench.worker("ada"), await bench.worker("bob")
    crashed, kept = await bench.held(ada), await bench.held(bob)
    async with bench.database.connection() as db:
        dead, bench.boot = bench.boot, await nodes.begin(db, "other", "1", 60)
        alive = await bench.held(ada)
        await recollects.keep_for_reconnect(db, [bob.session_id], 60)
        assert await claim_lookup.claims_of_boot(db, dead) == [(crashed.bucket_id, crashed.claim, ada.session_id)]
        assert await claims.release_crashed(db) == []
        await nodes.end(db, dead, "it ended")
        freed = await claims.release_crashed(db)
        assert await claims.release_crashed(db) == []
    assert [one.bucket_id for one in freed] == [crashed.bucket_id]
    assert (await bench.of(kept.bucket_id))["state"] == "claimed"
    assert (await bench.of(alive.bucket_id))["state"] == "claimed"
    assert (await bench.of(crashed.bucket_id))["attempts"] == 0
    assert await bench.ended(crashed.claim) == "crashed"


async def test_what_is_kept_is_freed_when_its_client_does_not_come_in_time(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    async with bench.database.connection() as db:
        await recollects.keep_for_reconnect(db, [ada.session_id], 60)
        row = await bench.of(mine.bucket_id)
        assert (row["state"], row["client_id"], row["session_id"]) == ("claimed", "ada", None)
        assert await bench.cut_off(ada) == []
        assert await claims.release_kept(db) == []
        await bench.execute("UPDATE bucket SET kept_until = kept_until - interval '61 s'")
        (freed,) = await claims.release_kept(db)
    assert freed.session_id is None
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["attempts"], await bench.ended(mine.claim)) == ("ready", 0, "drained")
    assert (await bench.member(ada))["streak"] == 0


async def test_a_bucket_that_settles_nothing_dies_and_is_freed_later(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    async with bench.database.connection() as db:
        assert await overdue.mark_dead(db, bench.service, 100, bench.boot) == []
        await bench.execute("UPDATE bucket SET touched_at = touched_at - interval '101 s'")
        (marked,) = await overdue.mark_dead(db, bench.service, 100, bench.boot)
        assert (marked.bucket_id, marked.claim, marked.client_id) == (mine.bucket_id, mine.claim, "ada")
        assert await overdue.mark_dead(db, bench.service, 100, bench.boot) == []
        assert (await bench.of(mine.bucket_id))["state"] == "dead"
        assert await bench.claim(await bench.worker("bob")) == []
        assert await overdue.release_dead(db, bench.service, 50, WINDOW, bench.boot) == []
        await bench.execute("UPDATE bucket SET touched_at = touched_at - interval '51 s'")
        (freed,) = await overdue.release_dead(db, bench.service, 50, WINDOW, bench.boot)
    assert freed.bucket_id == mine.bucket_id
    row = await bench.of(mine.bucket_id)
    assert (row["state"], row["attempts"], await bench.ended(mine.claim)) == ("ready", 1, "dead")
    assert (await bench.member(ada))["dead"] == 1


async def test_each_settled_item_starts_the_time_anew_and_revives_a_dead_bucket(bench: Bench) -> None:
    ada = await bench.worker("ada")
    for settle in (bench.settle, bench.settle_one):
        mine = await bench.held(ada)
        await bench.execute(KILL, mine.bucket_id)
        await settle(submit(mine, mine.items[:1], final=False))
        async with bench.database.connection() as db:
            assert (await bench.of(mine.bucket_id))["state"] == "claimed"
            assert await overdue.mark_dead(db, bench.service, 100, bench.boot) == []
        await settle(submit(mine, mine.items[1:]))


async def test_an_empty_submit_does_not_revive_a_dead_bucket(bench: Bench) -> None:
    """Else a client holds a bucket for ever without doing anything.  "Each settled item starts the time anew." """
    ada = await bench.worker("ada")
    for settle in (bench.settle, bench.settle_one):
        mine = await bench.held(ada)
        await bench.execute(KILL, mine.bucket_id)
        before = await bench.of(mine.bucket_id)
        await settle(submit(mine, [], final=False))
        after = await bench.of(mine.bucket_id)
        assert (after["state"], after["touched_at"]) == ("dead", before["touched_at"])
        await settle(submit(mine))


async def test_a_final_submit_of_nothing_is_a_giveback_that_counts_as_an_attempt(bench: Bench) -> None:
    ada = await bench.worker("ada")
    mine = await bench.held(ada)
    outcome = (await bench.settle(submit(mine, [])))[0] or await bench.settle_one(submit(mine, []))
    assert (outcome.stored, outcome.remaining, outcome.closed, outcome.freed) == (0, 3, True, True)
    row, member = await bench.of(mine.bucket_id), await bench.member(ada)
    assert (row["state"], row["attempts"], member["given_back"], member["streak"]) == ("ready", 1, 1, 1)
    assert await bench.claim(ada) == []
