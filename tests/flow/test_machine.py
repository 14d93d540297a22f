"""Anything in any order: clients, admins and the clock, and after each step the promises hold.

No bucket is held by two; claim numbers grow; every acknowledged result is stored once, under the claim that was
current when it was acknowledged, and nothing else is; every item is in exactly one place, and in two open buckets
only if it was prioritised while one was claimed; nobody is served before an item that ranks first, and nothing that
arrived after its bound.  At the end, everything that is left can be settled.

20 examples of 30 steps; with HYPOTHESIS_PROFILE=ci, 40 of 50.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar, get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.errors import Conflict, StaleClaim, UnassignedItems
from coordinator.model import Claimed, ItemId
from coordinator.store import recollects, statistics
from coordinator.store.pool import Database
from coordinator.store.results import CheckedSubmit, SubmitOutcome
from tests.flow.facts import Facts, in_order
from tests.flow.outage import Moment, Outage
from tests.flow.room import SAME_ORDER, Room, stop_clock
from tests.harness import PLACES
from tests.store.bench import DM, NON_DM, Worker, given, submit

SETTINGS = settings(report_multiple_bugs=False, suppress_health_check=list(HealthCheck))

T = TypeVar("T")

CLIENTS = ("ada", "ada", "bob", "cleo")
"""Clients of the sessions; two of them are one client's."""

_numbers = itertools.count()


PICK = st.integers(0, 999)
"""One of what there is, by its place modulo their number: what is drawn never depends on what has happened."""

PICKS = st.lists(PICK, min_size=1, max_size=5)


def _picked(things: Sequence[T], picks: Iterable[int]) -> list[T]:
    """Each of them once."""
    return [things[place] for place in dict.fromkeys(pick % len(things) for pick in picks)] if things else []


class Life(RuleBasedStateMachine):
    """One service from its first item to its last."""

    # Set by the test: what all examples share.
    runner: asyncio.Runner
    chance: random.Random
    node: Node
    database: Database
    outage: Outage

    def __init__(self) -> None:
        super().__init__()
        self.facts = Facts()
        self.checks = 0
        self.room: Room

    def run(self, step: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(step)

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        self.chance.seed(0)
        self.since = monotonic()
        # What earlier examples left open is not this one's concern, and only costs time.
        async with self.database.connection() as db:
            await db.execute("UPDATE bucket SET indexed = false, split_at = NULL WHERE indexed OR split_at IS NOT NULL")
            await db.execute("UPDATE bucket SET kept_until = now() + interval '1 year' WHERE kept_until IS NOT NULL")
        self.room = await Room.open(
            self.node, self.database, f"life{next(_numbers)}", bucket_size=4, dead_after=600, release_after=300
        )
        self.workers = [await self.room.worker(name) for name in CLIENTS]

    # Admins

    @rule(count=st.integers(1, 9), priority=st.sampled_from([100, 100, 0, 50, 150]))
    def add(self, count: int, priority: int) -> None:
        keys = [f"{self.room.name}-{next(_numbers)}" for _ in range(count)]
        self.run(self.room.add(keys, priority))
        known = self.run(self.room.ids())
        for key in keys:
            self.facts.alive[key] = ItemId(known[key])
            self.facts.open.add(ItemId(known[key]))

    @rule(picks=PICKS, priority=st.sampled_from([0, 0, 50]))
    def prioritise(self, picks: list[int], priority: int) -> None:
        self._prioritise(_picked(list(self.facts.alive), picks), priority)

    @rule(pick=PICK, picks=PICKS, place=st.integers(0, len(CLIENTS) - 1), settle=st.booleans())
    def prioritise_what_is_held(self, pick: int, picks: list[int], place: int, settle: bool) -> None:
        """Two copies, and one of them settled in part: what chance alone seldom comes to."""
        if claimed := self._one_held(pick):
            self._prioritise([key for key, item in self.facts.alive.items() if item in given(claimed)], 0)
            self.ask(place, 2)
            if settle:
                self.submit(pick, picks, "final with items left", DM)

    def _prioritise(self, keys: list[str], priority: int) -> None:
        before = {key: self.run(self.room.places(self.facts.alive[key])) for key in keys}
        self.run(self.room.prioritise(keys, priority))
        for key in keys:
            item = self.facts.alive[key]
            if set(before[key]) & {"claimed", "dead"}:
                self.facts.twice.add(item)
            self.facts.open.add(item)  # settled ones are checked again

    @rule(picks=PICKS)
    def delete(self, picks: list[int]) -> None:
        keys = _picked(list(self.facts.alive), picks)
        self.run(self.room.remove(keys))
        gone = {self.facts.alive.pop(key) for key in keys}
        self.facts.open -= gone
        for item, claim in list(self.facts.stored):
            if item in gone:
                del self.facts.stored[item, claim]
        for bucket, claimed in list(self.facts.held.items()):
            if self.run(self.room.ended(claimed.claim)) == "settled":
                # Nothing of it is left to do: what was settled and then asked for again stands elsewhere.
                for item in self.facts.open.intersection(given(claimed)):
                    assert self.run(self.room.places(item))
                self.facts.drop(bucket)

    def _one_held(self, pick: int) -> Claimed | None:
        """A bucket that somebody holds; somebody asks for one first if nobody does."""
        if not self.facts.held:
            self.ask(pick % len(CLIENTS), 1)
        return next(iter(_picked(in_order(self.facts.held.values()), [pick])), None)

    @rule()
    def retry(self) -> None:
        found = self.run(
            self.room.rows(
                "SELECT i.key FROM quarantine JOIN item i USING (item_id) WHERE service_id = $1", self.room.service
            )
        )
        if found:
            self.run(self.room.retry([row["key"] for row in found]))

    @rule(pick=PICK)
    def take_away(self, pick: int) -> None:
        if claimed := self._one_held(pick):
            assert self.run(self.room.node.parts.work.releases.take(claimed.bucket_id)) == 1
            self.facts.drop(claimed.bucket_id)

    # Clients

    @rule(place=st.integers(0, len(CLIENTS) - 1), count=st.integers(1, 3))
    def ask(self, place: int, count: int) -> None:
        self._hold_time()
        before = self.run(self.room.queue_of(self.workers[place]))
        got = self.run(self.room.ask(self.workers[place], count, first=SAME_ORDER))
        assert len(got) <= count
        for claimed in got:
            self.facts.hold(claimed)
        self.run(before.check([one.bucket_id for one in got]))

    @rule(
        pick=PICK,
        picks=PICKS,
        how=st.sampled_from(["whole", "whole", "part", "final with items left", "nothing"]),
        value=st.sampled_from([DM, DM, NON_DM]),
    )
    def submit(self, pick: int, picks: list[int], how: str, value: str) -> None:
        claimed = self._one_held(pick)
        if claimed is None:
            return
        chosen = given(claimed)
        if how in ("part", "final with items left"):
            chosen = _picked(chosen, picks)
        elif how == "nothing":
            chosen = []
        one = submit(claimed, chosen, value=value, final=how in ("whole", "final with items left"))
        try:
            self._settled(one, self.run(self.room.submit(one)))
        except Conflict:
            assert self._conflicts(one)

    def _conflicts(self, one: CheckedSubmit) -> bool:
        return any(self.facts.stored.get((item, one.claim), value) != value for item, value in one.rows)

    def _fresh(self, one: CheckedSubmit) -> list[ItemId]:
        """Those of its items that it is the first to settle."""
        over = self.facts.stored.keys() | self.facts.discarded
        return [item for item, _ in one.rows if item in self.facts.open and (item, one.claim) not in over]

    def _settled(self, one: CheckedSubmit, outcome: SubmitOutcome) -> None:
        assert not self._conflicts(one)
        keys, fresh = [(item, one.claim) for item, _ in one.rows], self._fresh(one)
        repeated = [key for key in keys if key in self.facts.stored]
        assert (outcome.stored, outcome.discarded) == (len(fresh), len(keys) - len(fresh) - len(repeated))
        assert outcome.duplicate == (bool(keys) and len(repeated) == len(keys))
        assert outcome.closed or not one.final
        self._note(one, closed=outcome.closed)

    def _note(self, one: CheckedSubmit, *, closed: bool) -> None:
        fresh = self._fresh(one)
        self.facts.stored.update({(item, one.claim): value for item, value in one.rows if item in fresh})
        self.facts.discarded.update((item, one.claim) for item, _ in one.rows if item not in fresh)
        self.facts.discarded -= self.facts.stored.keys()
        self.facts.open -= set(fresh)
        self.facts.acknowledged.append(one)
        if closed:
            self.facts.drop(one.bucket_id)

    @rule(pick=PICK, picks=PICKS, whole=st.booleans(), final=st.booleans(), moment=st.sampled_from(get_args(Moment)))
    def submit_while_the_database_goes(
        self, pick: int, picks: list[int], whole: bool, final: bool, moment: Moment
    ) -> None:
        """Whether it came through or not, the same message again leaves it stored once."""
        claimed = self._one_held(pick)
        if claimed is None:
            return
        one = submit(claimed, given(claimed) if whole else _picked(given(claimed), picks), final=whole or final)
        if self._conflicts(one):
            return
        outcome = self.run(self.outage.during(self.room.submit(one), claimed.bucket_id, moment))
        ended, stored = self.run(self.room.ended(claimed.claim)), self.run(self.room.stored())
        if outcome is not None:
            self._settled(one, outcome)
        elif ended is not None or any((item, claimed.claim) in stored for item in self._fresh(one)):
            assert moment == "committed"
            self._note(one, closed=ended is not None)
            self._repeat(one)
        else:
            self._settled(one, self.run(self.room.submit(one)))

    @rule(now=st.sampled_from([True, False, False, False]))
    def database_goes(self, now: bool) -> None:
        if now:  # connecting again takes time
            self.run(self.outage.strike())

    @rule(pick=PICK)
    def repeat(self, pick: int) -> None:
        """The same message again stores nothing; it ends a claim that is still current only if it is final."""
        for one in _picked(self.facts.acknowledged, [pick]):
            self._repeat(one)

    def _repeat(self, one: CheckedSubmit) -> None:
        held = self.facts.held.get(one.bucket_id)
        current = held is not None and held.claim == one.claim
        try:
            outcome = self.run(self.room.submit(one))
        except StaleClaim:
            # Right only for a message that was empty, or not all of which was kept.
            assert not current
            assert not one.rows or any((item, one.claim) not in self.facts.stored for item, _ in one.rows)
            return
        assert outcome.stored == 0
        if current and outcome.closed:
            self.facts.drop(one.bucket_id)

    @rule(pick=PICK, value=st.sampled_from([DM, NON_DM]))
    def submit_late(self, pick: int, value: str) -> None:
        """Nothing that a former holder sends is stored."""
        for claimed in _picked(in_order(self.facts.past), [pick]):
            try:
                outcome = self.run(self.room.submit(submit(claimed, value=value)))
            except (StaleClaim, Conflict):
                continue
            assert outcome.stored == 0
            assert outcome.closed

    @rule(pick=PICK)
    def submit_what_is_not_in_it(self, pick: int) -> None:
        claimed = self._one_held(pick)
        if claimed is None:
            return
        others = [item for item in self.facts.alive.values() if item not in claimed.items]
        for stranger in _picked(others, [pick]):
            # The group commit takes what is checked; by every rule, nothing of it is stored.
            try:
                self.run(self.room.settle_one(submit(claimed, [*given(claimed), stranger])))
            except UnassignedItems:
                continue
            raise AssertionError("an item of no such bucket was accepted")

    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        if claimed := self._one_held(pick):
            assert len(self.run(self.room.release(claimed))) == 1
            self.facts.drop(claimed.bucket_id)

    @rule(place=st.integers(0, len(CLIENTS) - 1))
    def disconnect(self, place: int) -> None:
        worker = self.workers[place]
        freed = {one.bucket_id for one in self.run(self.room.cut_off(worker))}
        assert freed == {b for b, one in self.facts.held.items() if one.session_id == worker.session_id}
        for bucket in freed:
            self.facts.lost.add(self.facts.held[bucket].claim)
            self.facts.drop(bucket)
        self.workers[place] = self.run(self.room.worker(worker.client_id))

    @rule(place=st.integers(0, len(CLIENTS) - 1))
    def drain(self, place: int) -> None:
        """The session's node drains: what it holds is kept for its client, without a session."""
        worker = self.workers[place]
        self.run(self._keep(worker))
        self.workers[place] = self.run(self.room.worker(worker.client_id))

    async def _keep(self, worker: Worker) -> None:
        async with self.database.connection() as db:
            await recollects.keep_for_reconnect(db, [worker.session_id], 60.0)

    @rule(picks=st.lists(PICK, max_size=3), place=st.integers(0, len(CLIENTS) - 1))
    def recollect(self, picks: list[int], place: int) -> None:
        worker = self.workers[place]
        self._hold_time()
        named = [one.bucket_id for one in _picked(in_order(self.facts.held.values()), picks)]
        for back in self.run(self.room.recollect(worker, named)):
            bucket = back.claimed.bucket_id
            held = self.facts.held.get(bucket)
            if held is not None:
                assert held.client_id == worker.client_id
                assert held.claim == back.former
                self.facts.drop(bucket)
            else:
                assert back.former in self.facts.lost, "given back, though it was not lost"
            assert self.facts.numbers[bucket] == back.former, "somebody else had it meanwhile"
            assert back.claimed.session_id == worker.session_id
            self.facts.hold(back.claimed, kept=held is not None)

    # The clock

    @rule()
    def tick(self) -> None:
        self._hold_time()
        self.run(self.room.tick())
        self._see_what_the_clock_took()

    @rule(seconds=st.sampled_from([2.0, 40.0, 130.0, 601.0, 25 * 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self._hold_time()
        self.run(self.room.later(seconds))
        self.tick()

    def _hold_time(self) -> None:
        """Take back most of what has really passed, so that only `time_passes` decides what is due."""
        real = monotonic()
        self.run(self.room.later((self.since - real) * 0.95))
        self.since = real

    def _see_what_the_clock_took(self) -> None:
        for bucket, claimed in list(self.facts.held.items()):
            ended = self.run(self.room.ended(claimed.claim))
            if ended in ("dead", "drained"):
                self.facts.drop(bucket)
            if ended == "drained":
                self.facts.lost.add(claimed.claim)

    # Promises

    @invariant()
    def promises_hold(self) -> None:
        if hasattr(self, "workers"):
            self.run(self._check())

    async def _check(self) -> None:
        room, facts = self.room, self.facts
        rows = await room.rows(
            "SELECT bucket_id, state, claim_id, client_id FROM bucket WHERE service_id = $1", room.service
        )
        holders = {row["bucket_id"]: (row["claim_id"], row["client_id"]) for row in rows if row["client_id"]}
        assert holders == {bucket: (one.claim, one.client_id) for bucket, one in facts.held.items()}
        for row in rows:
            assert row["claim_id"] == facts.numbers.get(row["bucket_id"], 0)
        open_claims = await room.rows(
            "SELECT claim_id FROM claim WHERE service_id = $1 AND ended_at IS NULL", room.service
        )
        assert {row["claim_id"] for row in open_claims} == {one.claim for one in facts.held.values()}
        stored = await room.rows(
            "SELECT item_id, claim_id, value->>'dm' AS dm FROM result WHERE service_id = $1", room.service
        )
        assert {(row["item_id"], row["claim_id"]): f'{{"dm":"{row["dm"]}"}}' for row in stored} == facts.stored
        await self._check_places()
        self.checks += 1
        if self.checks % 4 == 0:  # they look at all services, those of the examples before too
            await self._check_counts()

    async def _check_counts(self) -> None:
        """Counters, folded or not, say what a scan finds."""
        room, facts = self.room, self.facts
        async with self.database.connection() as db:
            if self.checks % 12 == 0:
                await statistics.fold(db)
            state = (await statistics.state(db))[room.service]
            waiting = await db.fetchval("SELECT count(*) FROM waiting_item WHERE service_id = $1", room.service)
            quarantined = await db.fetchval("SELECT count(*) FROM quarantine WHERE service_id = $1", room.service)
        assert (state.total, state.waiting, state.quarantined) == (len(facts.alive), waiting, quarantined)
        assert (state.left, state.settled) == (len(facts.open) - quarantined, len(facts.alive) - len(facts.open))

    async def _check_places(self) -> None:
        room, facts = self.room, self.facts
        found = await room.rows(f"SELECT item_id, place FROM ({PLACES}) p WHERE service_id = $1", room.service)
        places: dict[int, list[str]] = {}
        for row in found:
            places.setdefault(row["item_id"], []).append(row["place"])
        members = set((await room.ids()).values())
        assert members == set(facts.alive.values())
        assert set(places) <= members
        for key, item in facts.alive.items():
            where = sorted(places.get(item, []))
            if item not in facts.open:
                # Settled; only a copy that a client still has may be left of it.
                assert where == [] or (item in facts.twice and where in (["claimed"], ["dead"])), (key, where)
            elif len(where) == 2:
                assert item in facts.twice, (key, where)
                assert set(where) <= {"claimed", "dead", "ready"}, (key, where)
                assert where != ["ready", "ready"], (key, where)
            else:
                assert len(where) == 1, (key, where)

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            self.run(self._finish())

    async def _finish(self) -> None:
        """Honest clients bring the rest to its end, whatever has happened."""
        room, facts = self.room, self.facts
        for worker in self.workers:
            await room.cut_off(worker)
        facts.held.clear()
        for _ in range(60):
            await room.later(4000.0)
            await room.tick()
            facts.held.clear()
            quarantined = await room.rows(
                "SELECT i.key FROM quarantine JOIN item i USING (item_id) WHERE service_id = $1", room.service
            )
            if quarantined:
                await room.retry([row["key"] for row in quarantined])
            got = await room.ask(self.workers[0], 10)
            for claimed in got:
                facts.hold(claimed)
                await room.submit(submit(claimed))
                facts.open -= set(given(claimed))
                facts.held.clear()
            if not facts.open:
                break
        assert not facts.open, "some items never came to their end"
        async with self.database.connection() as db:
            state = (await statistics.state(db))[room.service]
        assert (state.total, state.settled) == (len(facts.alive), len(facts.alive))
        assert (state.left, state.quarantined) == (0, 0)


@pytest.mark.timeout(1200)
@pytest.mark.hypothesis
@pytest.mark.long
def test_anything_in_any_order(dsn_for_machine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Life.chance = random.Random()
    monkeypatch.setattr("coordinator.flow.bucket_builder._random", Life.chance)
    with asyncio.Runner() as runner:
        database = Database(dsn_for_machine)
        runner.run(database.open())
        stack = AsyncExitStack()
        node = Node(Settings(port=0, ops_port=0, data=tmp_path), dsn=dsn_for_machine)
        runner.run(stack.enter_async_context(node))
        try:
            runner.run(stop_clock(node))
            node.parts.core.signals._lost_track = (
                asyncio.Event()
            )  # these clients have no sessions: all they hold would be freed
            Life.runner, Life.node, Life.database = runner, node, database
            Life.outage = Outage(dsn_for_machine)
            run_state_machine_as_test(Life, settings=SETTINGS)
        finally:
            runner.run(stack.aclose())
            runner.run(database.close())
