"""A workbench for tests of the store: a service of its own, workers, and buckets put where a test wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from coordinator.model import (
    Boot,
    BucketId,
    Claimed,
    ClientId,
    Demand,
    Freed,
    ItemId,
    ServiceId,
    ServiceSettings,
    SessionId,
)
from coordinator.store import adding, building, claims, clients, item_changes, nodes, recollects, results, services
from coordinator.store.building import NewBucket
from coordinator.store.claims import EndReason
from coordinator.store.clients import NewSession
from coordinator.store.pool import Connection, Database
from coordinator.store.results import CheckedSubmit, SubmitOutcome

DM = '{"dm":"DM"}'
NON_DM = '{"dm":"NON_DM"}'

WINDOW = 120.0
"""Seconds in which a client may recollect, unless a test says otherwise."""

PATIENCE = 10.0
"""Seconds after which something that should have come at once has not come."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One session of a client."""

    client_id: ClientId
    session_id: SessionId
    address: str = "127.0.0.1"

    @property
    def demand(self) -> Demand:
        return Demand(self.client_id, self.session_id, self.address)

    @property
    def session(self) -> NewSession:
        """The session as it is noted when it begins."""
        return NewSession(self.session_id, self.client_id, self.address, None)


def mask_of(claimed: Claimed, chosen: Iterable[int]) -> str:
    """One '0' or '1' for each item of a bucket, '1' for the chosen ones."""
    wanted = set(chosen)
    return "".join("1" if item in wanted else "0" for item in claimed.items)


def given(claimed: Claimed) -> list[ItemId]:
    """The items that were handed out."""
    return [item for item, bit in zip(claimed.items, claimed.settled, strict=True) if bit == "0"]


def submit(
    claimed: Claimed, chosen: Iterable[int] | None = None, *, value: str = DM, final: bool = True, by: str | None = None
) -> CheckedSubmit:
    """A checked submit of the same value for all items that were handed out, or for some."""
    wanted = given(claimed) if chosen is None else [ItemId(item) for item in chosen]
    return CheckedSubmit(
        claimed.service_id,
        claimed.bucket_id,
        claimed.claim,
        claimed.client_id if by is None else ClientId(by),
        [(item, value) for item in wanted],
        mask_of(claimed, wanted),
        final,
    )


_FAIL = """
WITH earlier AS (SELECT 'earlier' || n AS client_id FROM generate_series(1, $3::int) n),
registered AS (
    INSERT INTO client (client_id, screen_name) SELECT client_id, client_id FROM earlier ON CONFLICT DO NOTHING),
joined AS (
    INSERT INTO membership (client_id, service_id, joined, settled) SELECT client_id, $2, false, 1 FROM earlier
    ON CONFLICT DO NOTHING)
INSERT INTO claim (claim_id, bucket_id, service_id, client_id, session_id, boot, given, ended, ended_at, spent)
SELECT nextval('claim_number'), $1, $2, client_id, gen_random_uuid(), 0, B'1', 'cut_off', now(), true FROM earlier"""


class Bench:
    """One service on the test's database."""

    def __init__(self, database: Database, service: ServiceId, boot: Boot) -> None:
        self.database = database
        self.settings = ServiceSettings(max_held_buckets=10_000, newcomer_buckets=10_000)
        self.service = service
        self.boot = boot
        self._keys = 0

    @classmethod
    async def make(cls, database: Database, name: str = "probe", **settings: Any) -> Bench:
        """A new service, without items."""
        async with database.connection() as db:
            service = await services.add(db, name, "dm_check", name, settings)
            boot = await nodes.begin(db, name, "1", 3600.0)
        assert service is not None
        return cls(database, service, boot)

    async def worker(self, name: str) -> Worker:
        """A new session of that client, which is registered and has joined."""
        async with self.database.connection() as db:
            await clients.register(db, ClientId(name), name.encode(), name)
            await clients.join(db, ClientId(name), {self.service: "{}"})
        return Worker(ClientId(name), SessionId(uuid4()))

    async def of_standing(self, name: str) -> Worker:
        """The same, of a client that has settled something."""
        worker = await self.worker(name)
        await self.execute("UPDATE membership SET settled = 1 WHERE client_id = $1", name)
        return worker

    # Putting things in place

    async def items(self, count: int) -> list[ItemId]:
        """New items of the catalogue that have joined the service and are nowhere yet."""
        keys = [f"s{self.service}k{self._keys + n}" for n in range(count)]
        self._keys += count
        async with self.database.transaction() as db:
            new = sorted((await adding.add(db, [(key, None, "{}") for key in keys], {}, 100)).values())
            await db.execute("SELECT enrol($1, $2)", self.service, new)
        return new

    async def waiting(self, count: int, priority: int = 100, head_start: float = 0.0) -> list[ItemId]:
        """New items that wait."""
        keys = [f"s{self.service}k{self._keys + n}" for n in range(count)]
        self._keys += count
        async with self.database.connection() as db:
            new = await adding.add(db, [(key, None, "{}") for key in keys], {self.service: head_start}, priority)
        return sorted(new.values())

    async def rerank(self, item: ItemId, priority: int, rank: float, since: float) -> None:
        """Let a waiting item have that priority, that rank and that age, in seconds from now."""
        async with self.database.transaction() as db:
            await db.fetch("SELECT * FROM take_waiting($1, ARRAY[$2::bigint])", self.service, item)
            await db.execute(
                """SELECT put_waiting($1, ARRAY[$2::bigint], date_trunc('second', now()) + make_interval(secs => $3),
                                      date_trunc('second', now()) + make_interval(secs => $4), $5)""",
                self.service,
                item,
                rank,
                since,
                priority,
            )

    async def bucket(
        self, size: int | Sequence[ItemId], *, age: float = 0.0, priority: int = 100, attempts: int = 0
    ) -> BucketId:
        """A ready bucket of so many new items, or of these, whose rank lies `age` seconds back."""
        chosen = await self.items(size) if isinstance(size, int) else list(size)
        bucket = BucketId(uuid4())
        async with self.database.transaction() as db:
            rank = await db.fetchval("SELECT now() - make_interval(secs => $1)", age)
            rows = await db.fetch(
                "SELECT item_id, item_json(item_id, key, attributes) AS fragment FROM item WHERE item_id = ANY ($1)",
                chosen,
            )
            parts = {row["item_id"]: row["fragment"] for row in rows}
            frame = "[" + ",".join(parts[item] for item in chosen) + "]"
            await building.put_buckets(db, [NewBucket(bucket, self.service, rank, rank, priority, chosen, frame)])
        await self.fail(bucket, attempts)
        return bucket

    async def fail(self, bucket: UUID, times: int) -> None:
        """Let a bucket have failed at so many clients of standing."""
        await self.execute("UPDATE bucket SET attempts = $2 WHERE bucket_id = $1", bucket, times)
        await self.execute(_FAIL, bucket, self.service, times)

    # Doing

    async def claim(self, *workers: Worker) -> list[Claimed]:
        """One claim statement with one demand for each worker given."""
        demands = [one.demand for one in workers]
        async with self.database.connection() as db:
            return (await claims.claim(db, self.service, demands, self.boot, self.settings)).claimed

    async def held(self, worker: Worker, size: int = 3, **where: Any) -> Claimed:
        """A new bucket in the hands of a worker; the pool must be empty."""
        bucket = await self.bucket(size, **where)
        (claimed,) = await self.claim(worker)
        assert claimed.bucket_id == bucket
        return claimed

    async def settle(self, *submits: CheckedSubmit) -> list[SubmitOutcome | None]:
        """The fast way, in one transaction."""
        async with self.database.transaction() as db:
            return await results.settle(db, submits)

    async def settle_one(self, one: CheckedSubmit, window: float = WINDOW) -> SubmitOutcome:
        """The way by every rule, in one transaction."""
        async with self.database.transaction() as db:
            outcome, _ = await results.settle_one(db, one, window)
        return outcome

    async def release(self, claimed: Claimed, way: EndReason = claims.RELEASED) -> list[Freed]:
        """End one claim."""
        async with self.database.connection() as db:
            return await claims.release_claim(db, claimed.bucket_id, claimed.claim, way, WINDOW)

    async def cut_off(self, worker: Worker) -> list[Freed]:
        """End a session; all that it holds was delivered."""
        async with self.database.connection() as db:
            held = await db.fetch("SELECT bucket_id FROM bucket WHERE session_id = $1", worker.session_id)
            delivered = [row["bucket_id"] for row in held]
            return await claims.release_session(
                db, worker.client_id, worker.session_id, claims.CUT_OFF, WINDOW, delivered
            )

    async def recollect(self, worker: Worker, named: Sequence[BucketId] = ()) -> list[recollects.Regranted]:
        """Give a client back what it may have back."""
        async with self.database.transaction() as db:
            return await recollects.recollect(db, worker.client_id, worker.session_id, named, self.boot, WINDOW)

    async def prioritize(self, chosen: Sequence[ItemId], priority: int = 0) -> BucketId | None:
        """Put items into one urgent bucket, as `item.prioritize` does; None if nothing moved."""
        async with self.database.transaction() as db:
            await building.lock(db, [self.service])
            urgent = await item_changes.take_for_priority(db, self.service, chosen, priority, 86_400.0)
            if not urgent:
                return None
            bucket, ids = BucketId(uuid4()), [one.item_id for one in urgent]
            frame = "[" + ",".join(one.fragment for one in urgent) + "]"
            rank, since = min(one.rank_at for one in urgent), min(one.since for one in urgent)
            await building.put_buckets(db, [NewBucket(bucket, self.service, rank, since, priority, ids, frame)])
            await item_changes.note_twins(db, self.service, [(bucket, ids)], urgent)
        return bucket

    async def delete(self, chosen: Sequence[ItemId]) -> list[Freed]:
        """Remove items, as `item.delete` does."""
        async with self.database.transaction() as db:
            await building.lock(db, [row["service_id"] for row in await db.fetch("SELECT service_id FROM service")])
            return await item_changes.delete(db, chosen)

    # Looking, and moving the clock

    async def execute(self, statement: str, *values: object) -> None:
        async with self.database.connection() as db:
            await db.execute(statement, *values)

    async def value(self, statement: str, *values: object) -> Any:
        async with self.database.connection() as db:
            return await db.fetchval(statement, *values)

    async def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        async with self.database.connection() as db:
            return [dict(row) for row in await db.fetch(statement, *values)]

    async def row(self, statement: str, *values: object) -> dict[str, Any]:
        """The only row."""
        (found,) = await self.rows(statement, *values)
        return found

    async def of(self, bucket: UUID) -> dict[str, Any]:
        """A bucket's row; `bits` are its settled items, `due` is in how many seconds it is cut up."""
        return await self.row(
            """SELECT *, settled::text AS bits, extract(epoch FROM split_at - now())::float8 AS due
                 FROM bucket WHERE bucket_id = $1""",
            bucket,
        )

    async def ended(self, claim: int) -> str | None:
        """How a claim ended, if it has."""
        row = await self.row("SELECT ended, ended_at FROM claim WHERE claim_id = $1", claim)
        assert (row["ended"] is None) == (row["ended_at"] is None)
        return None if row["ended"] is None else str(row["ended"])

    async def member(self, worker: Worker) -> dict[str, Any]:
        """A membership's row; `wait` is for how many seconds it still has to wait."""
        return await self.row(
            """SELECT *, extract(epoch FROM wait_until - now())::float8 AS wait
                 FROM membership WHERE client_id = $1 AND service_id = $2""",
            worker.client_id,
            self.service,
        )

    async def stored(self) -> dict[tuple[int, int], Any]:
        """All results of the service: (item, claim) and value."""
        found = await self.rows("SELECT item_id, claim_id, value FROM result WHERE service_id = $1", self.service)
        return {(row["item_id"], row["claim_id"]): row["value"] for row in found}

    async def places(self, item: int) -> list[str]:
        """Where an item is: 'waiting', 'quarantined', or the states of the open buckets that still want it."""
        found = await self.rows(
            """SELECT 'waiting' AS place FROM waiting_item WHERE service_id = $1 AND item_id = $2
               UNION ALL SELECT 'quarantined' FROM quarantine WHERE service_id = $1 AND item_id = $2
               UNION ALL SELECT b.state FROM bucket b JOIN bucket_items c USING (bucket_id)
                WHERE b.service_id = $1 AND b.state <> 'done' AND c.items @> ARRAY[$2]
                  AND get_bit(b.settled, array_position(c.items, $2) - 1) = 0""",
            self.service,
            item,
        )
        return sorted(row["place"] for row in found)

    async def forgive(self) -> None:
        """Let nobody wait or be choosy any more."""
        await self.execute("UPDATE membership SET wait_until = NULL, report_until = NULL")
        await self.execute("DELETE FROM return_block")


async def blocked(db: Connection, count: int = 1) -> None:
    """Wait until so many statements of this database stand still because of another one's lock."""
    async with asyncio.timeout(PATIENCE):
        while True:
            await db.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees what it saw first
            found = await db.fetchval(
                """SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'"""
            )
            if found >= count:
                return
            await asyncio.sleep(0.005)


async def interrupt(db: Connection) -> None:
    """Wait until a statement stands still because of a lock of this very connection, and end its connection.

    Those that wait for each other, as a node's statements may for a moment, are left alone.
    """
    async with asyncio.timeout(PATIENCE):
        while True:
            await db.execute("SELECT pg_stat_clear_snapshot()")
            ended = await db.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock'
                      AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"""
            )
            if ended:
                return
            await asyncio.sleep(0.005)
