"""A process of many cheap clients for storms: commands come in and counts go out, as JSON lines.

`join` (names, urls, address, think) adds clients that ask for a bucket, think so many seconds on average, submit it and
ask again, and come back with the library's backoff whenever their connection ends; `count` tells what they have done.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Any

import orjson
import uvloop
from websockets.exceptions import WebSocketException

from coordinator.client.backoff import Backoff
from tests.bench.peer import Message, Peer, secret_of, submission
from tests.bounded import within

OVER = (OSError, EOFError, TimeoutError, WebSocketException)


class Crowd:
    """All clients of the process, and their counts."""

    def __init__(self) -> None:
        self.at_work: set[str] = set()
        """Those whose newest session had its `ask` answered."""
        self.stored = 0
        self.drops = 0
        self.attempts = 0
        self.refused: Counter[str] = Counter()
        self.waits: list[float] = []
        """Seconds from ask to bucket, since the last look."""

    def count(self) -> dict[str, Any]:
        """Tell the counts; the waits are told once."""
        waits, self.waits = self.waits, []
        return {
            "at_work": len(self.at_work),
            "stored": self.stored,
            "drops": self.drops,
            "attempts": self.attempts,
            "refused": self.refused,
            "waits": waits,
        }


class StormClient:
    """One client through all of its connections."""

    def __init__(self, crowd: Crowd, name: str, urls: Sequence[str], address: str, think: float) -> None:
        self._crowd = crowd
        self._name = name
        self._urls = urls
        self._address = address
        self._think = think
        self._held: list[Message] = []

    async def run(self) -> None:
        """Work until cancelled."""
        backoff = Backoff()
        while True:
            try:
                self._crowd.attempts += 1
                peer = await Peer.open(f"{random.choice(self._urls)}/v1/client", self._address)
                try:
                    await self._begin(peer)
                    backoff = Backoff()
                    await self._work(peer)
                finally:
                    peer.connection.transport.abort()
            except OVER:
                self._crowd.drops += self._name in self._crowd.at_work
                self._crowd.at_work.discard(self._name)
            await asyncio.sleep(backoff.next())

    async def _begin(self, peer: Peer) -> None:
        holds = [{"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]} for bucket in self._held]
        self._held.clear()
        fields = {"client_id": self._name, "secret": secret_of(self._name), "holds": holds}
        welcome = await self._request(peer, "hello", protocol=1, **fields)
        if welcome["type"] == "error":
            raise EOFError(welcome["code"])
        if not welcome["registered"]:
            services = [{"service": "dm_check", "profile": {"source": self._name}}]
            answer = await self._request(peer, "register", screen_name=self._name, services=services)
            if answer["type"] == "error":
                raise EOFError(answer["code"])

    async def _work(self, peer: Peer) -> None:
        while True:
            if not self._held:
                asked_at = monotonic()
                asked = await self._request(peer, "ask", service="dm_check", count=1)
                self._crowd.at_work.add(self._name)
                if asked["type"] == "error":
                    await self._pause(peer, asked.get("retry_after", 1.0))
                    continue
                while not self._held:
                    self._take(await self._receive(peer))
                self._crowd.waits.append(monotonic() - asked_at)
            self._crowd.at_work.add(self._name)

            await self._pause(peer, random.uniform(0, 2 * self._think))
            bucket = self._held.pop()
            answer = await self._request(peer, "submit", **submission(bucket))
            if answer["type"] == "stored":
                self._crowd.stored += 1
            elif answer["code"] == "unavailable":
                self._held.append(bucket)
                await self._pause(peer, answer["retry_after"])
            else:
                self._crowd.refused[answer["code"]] += 1

    async def _request(self, peer: Peer, kind: str, **fields: Any) -> Message:
        await peer.send(kind, ref=0, **fields)
        while True:
            message = await self._receive(peer)
            if message.get("ref") == 0:
                return message
            self._take(message)

    async def _receive(self, peer: Peer) -> Message:
        message: Message = orjson.loads(await peer.connection.recv(decode=False))
        return message

    def _take(self, message: Message) -> None:
        if message["type"] == "bucket":
            self._held.append(message)

    async def _pause(self, peer: Peer, seconds: float) -> None:
        """Wait, unless the connection ends meanwhile."""
        try:
            await within(peer.connection.wait_closed(), seconds)
        except TimeoutError:
            return
        raise EOFError


async def main() -> None:
    """Do what is commanded until standard input ends."""
    crowd, tasks = Crowd(), list[asyncio.Task[None]]()
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "join":
            rest = command["urls"], command["address"], command["think"]
            clients = [StormClient(crowd, name, *rest) for name in command["names"]]
            tasks += [asyncio.create_task(client.run()) for client in clients]
        sys.stdout.write(json.dumps(crowd.count()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
