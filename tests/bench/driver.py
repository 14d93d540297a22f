"""A client process: daemons that check nothing and so are as quick as can be, or workers that insert by themselves.

Commands come in as JSON lines: `connect` (names), `work` (buckets), `direct` (dsn, connections), `insert` (buckets,
claim), `jobs` (buckets, first).
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import asyncpg
import msgspec
import uvloop

from tests.bench.peer import Peer, volunteer
from tests.bench.rows import shuffled_buckets

HOLD = 10
"""Buckets that a daemon holds or has asked for; what it is given by one ask, by default."""


class Item(msgspec.Struct):
    item: int


class Bucket(msgspec.Struct):
    bucket_id: str
    claim: int
    items: list[Item]


_bucket = msgspec.json.Decoder(Bucket)


class Quota:
    """How many buckets the daemons of this process still want."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, most: int) -> int:
        taken = min(most, self.left)
        self.left -= taken
        return taken


class Daemon:
    """Asks for what it has room for, submits at once, asks again; one ask at a time, as the library does."""

    def __init__(self, peer: Peer) -> None:
        self._connection = peer.connection
        self._open = 0
        self._asking = 0
        """How many it has just asked for."""

    async def work(self, quota: Quota) -> int:
        """Work until the quota is used up; return the items that were stored."""
        stored = 0
        await self._ask(quota)
        while self._open or self._asking:
            frame = await self._connection.recv(decode=False)
            kind = frame[9:15]

            if kind == b"bucket":
                await self._connection.send(submit_of(_bucket.decode(frame)), text=True)
            elif kind == b"stored":
                stored += int(msgspec.json.decode(frame)["stored"])
                self._open -= 1
                await self._ask(quota)
            elif kind == b'asked"':
                # Who is flagged, for being so much faster than others, is granted less; it asks again when it has less.
                missing = self._asking - int(msgspec.json.decode(frame)["count"])
                self._asking = 0
                self._open -= missing
                quota.left += missing
                if not missing:
                    await self._ask(quota)
            elif kind != b"waitin":
                raise AssertionError(frame)

        return stored

    async def _ask(self, quota: Quota) -> None:
        if self._asking or self._open >= HOLD or not (count := quota.take(HOLD - self._open)):
            return
        self._asking = count
        self._open += count
        await self._connection.send(f'{{"type":"ask","service":"dm_check","count":{count}}}')


def submit_of(bucket: Bucket) -> bytes:
    """A final submit for the whole bucket."""
    results = ",".join([f'{{"item":{item.item},"dm":"DM"}}' for item in bucket.items])
    head = f'{{"type":"submit","bucket_id":"{bucket.bucket_id}","claim":{bucket.claim},"results":['
    return f'{head}{results}],"final":true}}'.encode()


class Direct:
    """A worker that writes to the database by itself, as people without a coordinator let it: an insert a bucket."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def work(self, buckets: Iterator[tuple[int, list[int]]]) -> int:
        done = 0
        for claim, items in buckets:
            await self._connection.execute(
                """INSERT INTO result (item_id, service_id, claim_id, value)
                   SELECT item_id, 1, $1, value::jsonb FROM unnest($2::bigint[], $3::text[]) AS r (item_id, value)""",
                claim,
                items,
                ['{"dm":"DM"}'] * len(items),
            )
            done += len(items)
        return done

    async def jobs(self, buckets: Iterator[tuple[int, list[int]]]) -> int:
        """Put each bucket into a job queue, claim some job, store its results and delete it."""
        done = 0
        for number, items in buckets:
            await self._connection.execute("INSERT INTO job (job_id, items) VALUES ($1, $2)", number, items)
            done += await self._job()
        while more := await self._job():  # some look at the same job at once, and one of them finds nothing
            done += more
        return done

    async def _job(self) -> int:
        job = await self._connection.fetchrow(
            """UPDATE job SET locked_at = now()
                WHERE job_id = (SELECT job_id FROM job WHERE locked_at IS NULL ORDER BY job_id
                                 LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING job_id, items"""
        )
        if job is None:
            return 0
        async with self._connection.transaction():
            done = await self.work(iter([(job["job_id"], job["items"])]))
            await self._connection.execute("DELETE FROM job WHERE job_id = $1", job["job_id"])
        return done


async def main(url: str) -> None:
    """Do what is commanded until standard input ends."""
    daemons: list[Daemon] = []
    direct: list[Direct] = []
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    while line := await reader.readline():
        command = json.loads(line)
        begun = perf_counter()
        done = 0

        if command["do"] == "connect":
            daemons += [Daemon(await volunteer(url, name)) for name in command["names"]]
        elif command["do"] == "work":
            quota = Quota(command["buckets"])
            done = sum(await asyncio.gather(*(daemon.work(quota) for daemon in daemons)))
        elif command["do"] == "direct":
            direct += [Direct(await asyncpg.connect(command["dsn"])) for _ in range(command["connections"])]
        elif command["do"] == "insert":
            buckets = list(shuffled_buckets(command["buckets"], command["claim"]))
            begun = perf_counter()
            waiting = iter(buckets)
            done = sum(await asyncio.gather(*(worker.work(waiting) for worker in direct)))

        elif command["do"] == "jobs":
            buckets = list(shuffled_buckets(command["buckets"], command["first"]))
            begun = perf_counter()
            waiting = iter(buckets)
            done = sum(await asyncio.gather(*(worker.jobs(waiting) for worker in direct)))

        sys.stdout.write(json.dumps({"items": done, "begun": begun, "ended": perf_counter()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
