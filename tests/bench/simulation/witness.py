"""The model's store, with the real one beside it: every step is done on Postgres too, and must come out the same.

Postgres goes by the simulated clock: `now()` of the test's database is a function of its own.  Where chance decides,
which bucket of a rank is next, the real one decides and the model follows, if it could have been so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import asyncpg

from coordinator.errors import StaleClaim
from coordinator.flow.bucket_builder import BuildReason
from coordinator.model import BucketId, Claimed, ClientId, ItemId
from coordinator.store import claims, clients, recollects
from coordinator.store.claims import EndReason
from coordinator.store.results import Settling
from coordinator.store.statement_stats import StatementStats
from tests.bench.simulation.member import Demand, Freed, Member, Outcome, Submit
from tests.bench.simulation.node import Session
from tests.bench.simulation.queue import Bucket
from tests.bench.simulation.store import Store
from tests.flow.room import Room
from tests.store.bench import Worker, given, submit

SHIFTED = """
CREATE SCHEMA simulated;
CREATE TABLE simulated.clock (at timestamptz NOT NULL);
INSERT INTO simulated.clock VALUES (pg_catalog.now());
CREATE FUNCTION simulated.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM simulated.clock';
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = simulated, pg_catalog, public', current_database());
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
END $$"""
"""Gives a database a clock of its own, and commits that do not wait, for the connections made from then on."""

S = TypeVar("S")
T = TypeVar("T")
_BASE = datetime.now(UTC).replace(microsecond=0)

_NEW = """
SELECT bucket_id, rank_at, length(settled) AS items FROM bucket
 WHERE service_id = $1 AND bucket_id <> ALL ($2::uuid[]) ORDER BY rank_at, items"""

_BUCKETS = """
SELECT bucket_id, state, rank_at, length(settled) - bit_count(settled)::int AS left, attempts,
       client_id, split_at IS NOT NULL AS broken FROM bucket WHERE service_id = $1"""

_MEMBERS = "SELECT client_id, streak, wait_until FROM client_service WHERE service_id = $1"


def at(seconds: float) -> datetime:
    """A simulated time as the database has it."""
    return _BASE + timedelta(seconds=round(seconds, 6))


class Witness(Store):
    """The model of a store, and the real one; made for one `Day`, which is played in a thread of its own."""

    def __init__(self, *values: Any, room: Room, clock_connection: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(*values)
        self.steps: Counter[str] = Counter()
        self._room = room
        self._clock_connection = clock_connection
        self._loop = loop
        self._loads: tuple[StatementStats, ...] = (room.database.load, room.node.parts.core.database.load)
        self._real: dict[Bucket, BucketId] = {}
        self._model: dict[BucketId, Bucket] = {}
        self._new: list[Bucket] = []
        self._claim_of: dict[tuple[Bucket, int], tuple[Claimed, list[ItemId]]] = {}
        self._next: dict[Bucket, Claimed] = {}
        self._keys = 0
        self._within = False

    # Doing it twice

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """On the real store, at this simulated time."""
        return asyncio.run_coroutine_threadsafe(self._timed(work), self._loop).result(60)

    async def _timed(self, work: Coroutine[Any, Any, T]) -> T:
        await self._clock_connection.execute("UPDATE simulated.clock SET at = $1", at(self.clock.now))
        return await work

    def _both(self, name: str, real: Callable[[], Coroutine[Any, Any, T]], model: Callable[[], T]) -> T:
        """What both say, which is the same, and so is the number of statements."""
        self.steps[name] += 1
        said = self._counted(name, lambda: self._do(real()), model)
        assert said[0] == said[1], f"{name}: {said}"
        return said[1]

    def _counted(self, name: str, real: Callable[[], S], model: Callable[[], T]) -> tuple[S, T]:
        self._within = True
        asked, noted = self._asked(), self._noted()
        first = real()
        asked = self._asked() - asked
        second = model()
        assert asked.total() == self._noted() - noted, f"{name}: {dict(asked)}, {first}, {second}"
        self._meet()
        self._within = False
        return first, second

    def _asked(self) -> Counter[str]:
        """Statements that the real store made, by name; those of no name are the listening connection's."""
        found: Counter[str] = Counter()
        for load in self._loads:
            found.update({one.statement: one.calls for one in load.snapshot().statements if one.statement != "other"})
        return found

    def _noted(self) -> float:
        return sum(work.statements for one in self.ledger.bins for work in one.values())

    def _put(self, bucket: Bucket) -> None:
        super()._put(bucket)
        if bucket not in self._real:
            self._new.append(bucket)

    def _meet(self) -> None:
        """The buckets that were made, in both: as many, of the same ranks and sizes."""
        if not self._new:
            return
        made, self._new = sorted(self._new, key=lambda one: (one.rank, one.left)), []
        rows = self._do(self._room.rows(_NEW, self._room.service, list(self._model)))
        assert [(row["rank_at"], row["items"]) for row in rows] == [(at(one.rank), one.left) for one in made]
        for row, bucket in zip(rows, made, strict=True):
            self._real[bucket] = row["bucket_id"]
            self._model[row["bucket_id"]] = bucket

    # The steps

    def join(self, client_id: str) -> Member:
        self._do(self._room.worker(client_id))
        return super().join(client_id)

    def add(self, priority: int, count: int) -> None:
        keys = [f"key{self._keys + n}" for n in range(count)]
        self._keys += count
        model = super().add
        self._both("add", lambda: self._room.add(keys, priority), lambda: model(priority, count))

    def make(self, reason: BuildReason = BuildReason.AHEAD, *, wait_for_lock: bool = False) -> int:
        model = super().make
        if self._within:
            return model(reason, wait_for_lock=wait_for_lock)

        async def make() -> int:
            return (await self._room.build(reason)).buckets

        return self._both("make", make, lambda: model(reason))

    def claim(self, demands: Sequence[Demand]) -> list[Bucket | None]:
        self.steps["claim"] += 1
        model = super().claim
        real: list[Claimed] = self._do(self._room.claim(*map(_worker, demands)))
        self._next = {self._model[one.bucket_id]: one for one in real}
        served = model(demands)
        for bucket, demand in zip(served, demands, strict=True):
            if bucket is not None:
                self._hold(bucket, self._next[bucket], demand.session)
        return served

    def _none(self, demands: Sequence[Demand]) -> list[Bucket | None]:
        assert not self._next, "the real pool was empty too"
        return super()._none(demands)

    def _draw(self, demands: Sequence[Demand], fit: Sequence[int]) -> list[Bucket]:
        for bucket in sorted(self._next, key=lambda one: one.rank):
            self._draw_this(bucket)
        assert len(self._next) == len(fit) or not self.ready.size, "nothing is kept back"
        left = dict(self._next)
        drawn = []
        for n in fit[: len(left)]:
            session = cast(Session, demands[n].session)
            mine = next(bucket for bucket, one in left.items() if one.session_id == session.session_id)
            del left[mine]
            drawn.append(mine)
        return drawn

    def _draw_this(self, bucket: Bucket, refused: Sequence[Bucket] = ()) -> None:
        def choose(offered: Sequence[Bucket]) -> Bucket:
            assert bucket in offered, "it is of the best rank"
            return bucket

        assert self.ready.draw(choose, refused) is bucket

    def _draw_for(self, demand: Demand, refused: Sequence[Bucket]) -> Bucket | None:
        self.steps["choosy"] += 1
        if not self._next:
            assert self.ready.draw(lambda offered: offered[0], refused) is None
            return None
        (bucket,) = self._next
        self._draw_this(bucket, refused)
        return bucket

    def claim_choosy(self, demand: Demand) -> Bucket | None:
        async def claim() -> Claimed | None:
            async with self._room.database.connection() as db:
                return await claims.claim_choosy(db, self._room.service, _worker(demand).demand, self._room.boot)

        one = self._do(claim())
        self._next = {} if one is None else {self._model[one.bucket_id]: one}
        bucket = super().claim_choosy(demand)
        if bucket is not None:
            self._hold(bucket, self._next[bucket], demand.session)
        return bucket

    def _hold(self, bucket: Bucket, claimed: Claimed, session: object) -> None:
        items = given(claimed)
        assert (claimed.attempts, len(items)) == (bucket.attempts, bucket.left)
        assert claimed.session_id == cast(Session, session).session_id
        self._claim_of[bucket, bucket.claim] = claimed, items

    def waits(self, members: Sequence[Member]) -> list[tuple[float | None, bool]]:
        model = super().waits

        async def waits() -> list[tuple[float | None, bool]]:
            async with self._room.database.connection() as db:
                ids = [ClientId(one.client_id) for one in members]
                found = {one.client_id: one for one in await claims.waits(db, self._room.service, ids)}
            told = [found[one] for one in ids]
            return [(None if one.seconds is None else round(one.seconds, 6), one.choosy) for one in told]

        return self._both("waits", waits, lambda: model(members))

    def settle(self, submits: Sequence[Submit]) -> list[Outcome | None]:
        settlings = [self._settling(one) for one in submits]
        model = super().settle
        return self._both("settle", lambda: self._settle_all(settlings), lambda: model(submits))

    def _settling(self, one: Submit) -> Settling:
        claimed, left = self._claim_of[one.bucket, one.claim]
        chosen, left[: one.items] = left[: one.items], []
        return submit(claimed, chosen, final=one.final)

    async def _settle_all(self, settlings: Sequence[Settling]) -> list[Outcome | None]:
        """As the group commit does it: together, and alone what was passed over."""
        found: list[Outcome | None] = []
        together = await self._room.settle(*settlings, window=self.recollect_window)
        for settling, outcome in zip(settlings, together, strict=True):
            if outcome is None:
                try:
                    outcome = await self._room.settle_one(settling, self.recollect_window)
                except StaleClaim:
                    found.append(None)
                    continue
            found.append(Outcome(outcome.closed, outcome.freed, outcome.calmed))
        return found

    def release_session(self, session: object, member: Member, way: EndReason, delivered: Sequence[Bucket]) -> int:
        model = super().release_session
        worker = _worker(Demand(member, session))
        buckets = [self._real[bucket] for bucket in delivered]
        window = self.recollect_window

        async def release() -> int:
            async with self._room.database.connection() as db:
                freed = await claims.release_session(db, worker.client_id, worker.session_id, way, window, buckets)
            return len(freed)

        return self._both("release " + way.ended, release, lambda: model(session, member, way, delivered))

    def release_claim(self, bucket: Bucket, claim: int, way: EndReason) -> int:
        model = super().release_claim
        claimed, _ = self._claim_of[bucket, claim]

        async def release() -> int:
            async with self._room.database.connection() as db:
                freed = await claims.release_claim(db, claimed.bucket_id, claimed.claim, way, self.recollect_window)
            return len(freed)

        return self._both("release " + way.ended, release, lambda: model(bucket, claim, way))

    def recollect(self, member: Member, session: object, named: Sequence[Bucket]) -> list[Bucket]:
        self.steps["recollect"] += 1
        model = super().recollect
        worker = _worker(Demand(member, session))
        buckets = [self._real[bucket] for bucket in named]

        async def recollect() -> list[recollects.Regranted]:
            async with self._room.database.transaction() as db:
                return await recollects.recollect(
                    db, worker.client_id, worker.session_id, buckets, self._room.boot, self.recollect_window
                )

        real, found = self._counted("recollect", lambda: self._do(recollect()), lambda: model(member, session, named))
        again = {self._model[one.claimed.bucket_id]: one.claimed for one in real}
        assert set(again) == set(found)
        self.steps["recollected"] += len(found)
        for bucket in found:
            self._hold(bucket, again[bucket], session)
        return found

    def report(self, member: Member, seconds: float) -> None:
        model = super().report

        async def report() -> None:
            async with self._room.database.connection() as db:
                await clients.report(db, ClientId(member.client_id), self._room.service, seconds)

        self._both("report", report, lambda: model(member, seconds))

    def tick(self) -> tuple[list[Freed], int]:
        self.steps["tick"] += 1
        _, told = self._counted("tick", lambda: self._do(self._ticked()), super().tick)
        self.steps["died"] += len(told[0])
        return told

    async def _ticked(self) -> tuple[list[Freed], int]:
        await self._room.tick()
        return [], 0

    def compare(self) -> None:
        """All buckets and members, and what was written."""
        buckets = {row["bucket_id"]: row for row in self._do(self._room.rows(_BUCKETS, self._room.service))}
        assert set(buckets) == set(self._model)
        for bucket_id, row in buckets.items():
            bucket = self._model[bucket_id]
            holder = None if bucket.holder is None else bucket.holder.client_id
            assert (row["state"], row["rank_at"], row["client_id"]) == (bucket.state, at(bucket.rank), holder)
            if bucket.state != "done":
                assert (row["left"], row["attempts"]) == (bucket.left, bucket.attempts)
                assert row["broken"] == (bucket.split_at is not None)
        waiting = self._do(self._room.value("SELECT count(*) FROM waiting WHERE service_id = $1", self._room.service))
        assert waiting == self.waiting.items


def _worker(demand: Demand) -> Worker:
    session = cast(Session, demand.session)
    return Worker(session.client_id, session.session_id)


async def shift_clock(dsn: str) -> Any:
    """Give that database its own clock; returns the connection by which it is set."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(SHIFTED)
    await connection.execute("SET synchronous_commit = off")
    return connection
