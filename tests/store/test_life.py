"""Walks the table of a bucket's life on the database: every state and every event, those that change nothing too."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from coordinator.errors import StaleClaim
from coordinator.flow.life import LIFE, STATES, BucketEvent, State, drawing
from coordinator.model import Claimed
from coordinator.store import building, claims, overdue, recollects
from coordinator.store.pool import Database

from .bench import WINDOW, Bench, Worker, submit

PROTOCOL = Path(__file__).parents[2] / "protocol.md"


def test_the_table_in_the_protocol_is_this_one() -> None:
    text = PROTOCOL.read_text(encoding="utf-8")
    start, end = "<!-- bucket life: generated -->", "<!-- bucket life: end -->"
    assert text.split(start, 1)[1].split(end, 1)[0].strip() == drawing()


class Walk:
    """A bucket that was once claimed by `mine` and is now in some state."""

    def __init__(self, bench: Bench, database: Database, mine: Worker, also: Worker, other: Worker) -> None:
        self.bench, self.database = bench, database
        self.mine, self.also, self.other = mine, also, other
        self.claimed: Claimed

    async def bring_to(self, state: State, event: BucketEvent) -> None:
        self.claimed = await self.bench.held(self.mine)
        bucket = self.claimed.bucket_id
        if event is BucketEvent.SETTLE_NOTHING:
            await self.bench.settle_one(submit(self.claimed, self.claimed.items[:1], final=False))
        if state == "dead":
            await self.bench.execute(
                "UPDATE bucket SET state = 'dead', touched_at = now() WHERE bucket_id = $1", bucket
            )
        elif state == "ready":
            await self.bench.cut_off(self.mine)
            await self.bench.forgive()
        elif state == "done":
            await self.bench.settle_one(submit(self.claimed))
        if event is BucketEvent.SPLIT and state == "ready":
            await self.bench.execute("UPDATE bucket SET attempts = 3, split_at = now() WHERE bucket_id = $1", bucket)
        if event in (BucketEvent.KEPT_TOO_LONG,) or (event is BucketEvent.RECOLLECT and state in ("claimed", "dead")):
            async with self.database.connection() as db:
                await recollects.keep_for_reconnect(
                    db, [self.mine.session_id], 0.0 if event is BucketEvent.KEPT_TOO_LONG else 60.0
                )

    async def state(self) -> tuple[State, int]:
        row = await self.bench.row("SELECT state, attempts FROM bucket WHERE bucket_id = $1", self.claimed.bucket_id)
        return row["state"], row["attempts"]

    async def cost(self) -> int:
        return int((await self.bench.member(self.mine))["streak"])


Do = Callable[[Walk], Awaitable[object]]


async def _settle(walk: Walk, chosen: int | None, *, final: bool) -> None:
    items = None if chosen is None else walk.claimed.items[:chosen]
    with contextlib.suppress(StaleClaim):
        await walk.bench.settle_one(submit(walk.claimed, items, final=final))


async def _claim(walk: Walk) -> object:
    return await walk.bench.claim(walk.other)


async def _free(walk: Walk, way: claims.EndReason) -> object:
    async with walk.database.connection() as db:
        return await claims.release_claim(db, walk.claimed.bucket_id, walk.claimed.claim, way, WINDOW)


async def _kept(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await claims.release_kept(db)


async def _crash(walk: Walk) -> object:
    boot = await walk.bench.value("SELECT boot FROM claim WHERE claim_id = $1", walk.claimed.claim)
    await walk.bench.execute("UPDATE node SET state = 'gone' WHERE boot = $1", boot)
    try:
        async with walk.database.connection() as db:
            return await claims.release_crashed(db)
    finally:
        await walk.bench.execute("UPDATE node SET state = 'live' WHERE boot = $1", boot)


async def _dead(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await overdue.mark_dead(db, walk.bench.service, 0.0, walk.bench.boot)


async def _dead_too_long(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await overdue.release_dead(db, walk.bench.service, 0.0, WINDOW, walk.bench.boot)


async def _drain(walk: Walk) -> None:
    async with walk.database.connection() as db:
        await recollects.keep_for_reconnect(db, [walk.mine.session_id], 60.0)


async def _split(walk: Walk) -> object:
    async with walk.database.transaction() as db:
        due = await building.due_for_split(db, walk.bench.service, 10)
        await building.close(db, [one.bucket_id for one in due])
        return due


async def _leave(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await claims.release_client(db, walk.mine.client_id, walk.bench.service, claims.LEFT, WINDOW)


async def _deactivate(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await claims.release_client(db, walk.mine.client_id, None, claims.DEACTIVATED, WINDOW)


async def _revoke(walk: Walk) -> object:
    async with walk.database.connection() as db:
        return await claims.release_service(db, walk.bench.service, claims.REVOKED)


HOW: dict[BucketEvent, Do] = {
    BucketEvent.CLAIM: _claim,
    BucketEvent.SETTLE_SOME: lambda walk: _settle(walk, 2, final=False),
    BucketEvent.SETTLE_REST: lambda walk: _settle(walk, None, final=True),
    BucketEvent.SETTLE_FINAL: lambda walk: _settle(walk, 1, final=True),
    BucketEvent.SETTLE_NOTHING: lambda walk: _settle(walk, 1, final=False),
    BucketEvent.RELEASE: lambda walk: _free(walk, claims.RELEASED),
    BucketEvent.DISCONNECT: lambda walk: walk.bench.cut_off(walk.mine),
    BucketEvent.RECOLLECT: lambda walk: walk.bench.recollect(walk.also),
    BucketEvent.TAKE_OVER: lambda walk: walk.bench.recollect(walk.also, [walk.claimed.bucket_id]),
    BucketEvent.LEAVE: _leave,
    BucketEvent.DRAIN: _drain,
    BucketEvent.KEPT_TOO_LONG: _kept,
    BucketEvent.CRASH: _crash,
    BucketEvent.DEAD: _dead,
    BucketEvent.DEAD_TOO_LONG: _dead_too_long,
    BucketEvent.SPLIT: _split,
    BucketEvent.EXPIRED: lambda walk: _free(walk, claims.EXPIRED),
    BucketEvent.TAKEN: lambda walk: _free(walk, claims.TAKEN),
    BucketEvent.DEACTIVATE: _deactivate,
    BucketEvent.REVOKE: _revoke,
    BucketEvent.EMPTIED: lambda walk: walk.bench.delete(walk.claimed.items),
}


def test_every_event_has_its_way_in_this_walk() -> None:
    assert set(HOW) == set(BucketEvent)


@pytest.mark.parametrize("event", list(BucketEvent), ids=lambda event: event.name.lower())
@pytest.mark.parametrize("state", STATES)
async def test_what_happens_is_what_the_table_says(
    bench: Bench, database: Database, state: State, event: BucketEvent
) -> None:
    mine = await bench.worker("mine")
    walk = Walk(bench, database, mine, await bench.worker("mine"), await bench.worker("other"))
    await walk.bring_to(state, event)
    before, cost = await walk.state(), await walk.cost()
    assert before[0] == state
    await HOW[event](walk)
    after = await walk.state()
    outcome = LIFE.get((state, event))
    if outcome is None and not (state == "ready" and event is BucketEvent.TAKE_OVER):  # that is a plain recollect
        assert after == before
        assert await walk.cost() == cost
    elif outcome is not None:
        assert after[0] == outcome.to
        if event is not BucketEvent.RECOLLECT:  # it takes back the attempt of the disconnect before it
            assert after[1] - before[1] == outcome.attempt
            assert (await walk.cost() - cost == 1) is outcome.cost
