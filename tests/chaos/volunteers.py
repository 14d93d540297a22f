"""A process of clients that write down all they do: `python -m tests.chaos.volunteers` is started by the crowd.

Careful ones submit all that they get, and repeat what was not answered; the others also hold on to buckets, give them
back, leave items over, and send what is stale, repeated or contradicts what they sent before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from coordinator.wire.frames import SUBPROTOCOL
from tests.bounded import within
from tests.chaos.history import Began, Ended, Fail, Given, Invoked, Lost, Ok, Operation, Recorder, Unknown
from tests.harness import Message, secret_of

SERVICE = "chaos"
"""The service that they work for: its results are a token each, which no other submit has."""

ANSWER_WITHIN = 60.0
"""Seconds after which a client takes its connection as gone."""

DOUBTFUL = frozenset({"unavailable", "internal"})
"""Errors that leave open whether something was done."""

OVER = (OSError, EOFError, TimeoutError, WebSocketException)
"""Ends of a connection."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A submit that is made once and sent until it is answered."""

    bucket: str
    claim: int
    values: dict[int, str]
    final: bool


@dataclass(slots=True)
class Held:
    """A bucket in hand; `left` are the items without a result."""

    bucket: str
    claim: int
    left: list[int]


@dataclass(slots=True)
class Crew:
    """Things that the clients of a process share."""

    urls: Sequence[str]
    recorder: Recorder
    chance: random.Random
    careful: bool
    run: str
    think: float
    """Seconds before a submit, at most."""
    calls: int = 0
    calm: bool = False
    """Whether the run is about to end: no more tricks."""

    def next_call(self) -> str:
        self.calls += 1
        return f"{self.run}.{self.calls}"

    def tries(self, share: float) -> bool:
        """Whether to do something foolish now."""
        return not self.careful and not self.calm and self.chance.random() < share


@dataclass(slots=True)
class VolunteerLife:
    """One client through all of its connections."""

    name: str
    crew: Crew
    held: dict[str, Held] = field(default_factory=dict)
    unanswered: list[Sending] = field(default_factory=list)
    past: list[Sending] = field(default_factory=list)
    """Submits that were answered: for repeats."""
    given_back: list[Held] = field(default_factory=list)
    """Buckets that are no longer its own: for what is stale."""

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            url = self.crew.chance.choice(self.crew.urls)
            with contextlib.suppress(*OVER):
                connection = await connect(
                    f"{url}/v1/client",
                    subprotocols=[Subprotocol(SUBPROTOCOL)],
                    compression=None,
                    open_timeout=5,
                    close_timeout=1,
                    ping_interval=5,
                    ping_timeout=10,
                )
                async with connection:
                    await VolunteerSession(self, connection).run()
            await asyncio.sleep(self.crew.chance.uniform(0.05, 0.4))


class VolunteerSession:
    """One connection of a client."""

    def __init__(self, life: VolunteerLife, connection: ClientConnection) -> None:
        self._life = life
        self._crew = life.crew
        self._connection = connection
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._came = asyncio.Event()
        """Set when a bucket has come, or the connection has ended."""
        self._over = asyncio.Event()
        self._outstanding = 0
        self._session = ""
        self._hello_at = 0.0

    async def run(self) -> None:
        """Work until the connection ends."""
        reading = asyncio.create_task(self._read())
        why = "it was cancelled"
        try:
            await self._begin()
            while True:
                await self._step()
        except OVER as failure:
            why = repr(failure)
            raise
        finally:
            reading.cancel()
            if self._session:
                self._crew.recorder.note(Ended(Recorder.now(), self._life.name, self._session, why[:200]))

    async def _read(self) -> None:
        try:
            async for frame in self._connection:
                message = msgspec.json.decode(frame)
                if message["type"] == "welcome":
                    self._welcomed(message)
                waiting = self._answers.pop(message.get("ref", ""), None)
                if waiting is None:
                    self._take_push(message)
                elif not waiting.done():
                    waiting.set_result(message)
        except WebSocketException:
            pass
        finally:
            self._connection.transport.abort()
            self._over.set()
            self._came.set()
            for waiting in self._answers.values():
                if not waiting.done():
                    waiting.set_exception(EOFError("the connection ended"))

    def _welcomed(self, welcome: Message) -> None:
        """Take the session's name before the pushes that come right behind it."""
        self._session = welcome["session_id"]
        self._life.held.clear()  # what it may keep comes again, under a new claim
        self._crew.recorder.note(Began(Recorder.now(), self._life.name, self._session, self._hello_at))

    def _take_push(self, message: Message) -> None:
        life, recorder = self._life, self._crew.recorder
        bucket, claim = message.get("bucket_id", ""), message.get("claim", 0)
        if message["type"] == "bucket":
            items = [item["item"] for item in message["items"]]
            recorder.note(Given(Recorder.now(), life.name, self._session, bucket, claim, items))
            life.held[bucket] = Held(bucket, claim, items)
            self._outstanding -= 1
            self._came.set()
        elif message["type"] == "bucket_lost":
            recorder.note(Lost(Recorder.now(), life.name, self._session, bucket, claim, message["reason"]))
            if bucket in life.held and life.held[bucket].claim == claim:
                del life.held[bucket]

    async def _begin(self) -> None:
        life = self._life
        holds = [{"bucket_id": held.bucket, "claim": held.claim} for held in life.held.values()]
        self._hello_at = Recorder.now()
        welcome = await self._exchange(
            "hello", protocol=1, client_id=life.name, secret=secret_of(life.name), holds=holds
        )
        if welcome["type"] == "error":
            raise EOFError(welcome["code"])

        if not welcome["registered"]:
            services = [{"service": SERVICE}]
            answer = await self._exchange("register", screen_name=life.name, services=services)
            if answer["type"] == "error":
                raise EOFError(answer["code"])

    # Work

    async def _step(self) -> None:
        life, crew = self._life, self._crew
        if self._over.is_set():  # who waits for a bucket sends nothing, and would not hear of it
            raise EOFError("the connection ended")
        for sending in life.unanswered[:]:
            await self._send(sending)
        if life.unanswered:
            return  # a final submit must not overtake the part before it
        if self._outstanding < 1 and len(life.held) < 3:
            await self._ask()
        if not life.held:
            self._came.clear()
            with contextlib.suppress(TimeoutError):
                await within(self._came.wait(), 1.0)
            return

        held = crew.chance.choice(list(life.held.values()))
        with contextlib.suppress(TimeoutError):
            await within(self._over.wait(), crew.chance.uniform(0, 4.0 if crew.tries(0.1) else crew.think))
        if life.held.get(held.bucket) is held:
            await self._settle(held)
        if life.past and crew.tries(0.1):
            await self._repeat()
        if life.given_back and crew.tries(0.05):
            await self._go_on_regardless(crew.chance.choice(life.given_back))

    async def _settle(self, held: Held) -> None:
        life, crew = self._life, self._crew
        if crew.tries(0.06):
            answer = await self._request("release", held.bucket, held.claim)
            if answer["type"] == "error" and answer["code"] in DOUBTFUL:
                return  # it has it still, as far as it knows
            if life.held.get(held.bucket) is held:
                del life.held[held.bucket]
            life.given_back = [*life.given_back[-20:], held]
            if crew.chance.random() < 0.5:
                await asyncio.sleep(crew.chance.uniform(0.05, 0.5))  # others have it by now
                await self._go_on_regardless(held)
            return

        token = crew.next_call()
        final, items = True, held.left
        if len(items) > 1 and crew.chance.random() < 0.3:
            items = items[: len(items) // 2]
            final = crew.tries(0.3)
        held.left = [item for item in held.left if item not in items]
        if final or not held.left:
            del life.held[held.bucket]

        sending = Sending(held.bucket, held.claim, {item: f"{token}/{item}" for item in items}, final)
        life.unanswered.append(sending)
        await self._send(sending)

    async def _send(self, sending: Sending) -> None:
        """Send a submit; it stays among the unanswered ones unless the answer settles the matter."""
        answer = await self._submit(sending)
        if answer["type"] == "error" and answer["code"] in DOUBTFUL:
            await asyncio.sleep(min(answer.get("retry_after", 1.0), 2.0))
            return
        if answer["type"] == "error" and answer["code"] in ("rate_limited", "quota"):
            await asyncio.sleep(answer.get("retry_after", 1.0))
            return

        if sending in self._life.unanswered:
            self._life.unanswered.remove(sending)
        if answer["type"] == "stored":
            self._life.past = [*self._life.past[-20:], sending]

    async def _go_on_regardless(self, held: Held) -> None:
        """Release again, or submit, what was given back; neither must have an effect."""
        if self._crew.chance.random() < 0.5:
            await self._request("release", held.bucket, held.claim)
        else:
            token = self._crew.next_call()
            await self._submit(Sending(held.bucket, held.claim, {item: f"{token}/{item}" for item in held.left}, True))

    async def _repeat(self) -> None:
        """Repeat what was stored, or contradict it; either must leave things as they are."""
        sending = self._crew.chance.choice(self._life.past)
        if self._crew.chance.random() < 0.4:
            token = self._crew.next_call()
            sending = replace(sending, values={item: f"{token}/{item}" for item in sending.values})
        await self._submit(sending)

    async def _submit(self, sending: Sending) -> Message:
        results = [{"item": item, "token": value} for item, value in sending.values.items()]
        return await self._request(
            "submit", sending.bucket, sending.claim, sending.values, results=results, final=sending.final
        )

    async def _ask(self) -> None:
        count = self._crew.chance.choice((1, 1, 2))
        answer = await self._request("ask", service=SERVICE, count=count)
        if answer["type"] == "error":
            await asyncio.sleep(min(answer.get("retry_after", 0.5), 1.0))
        else:
            self._outstanding += answer["count"]

    # Requests

    async def _request(
        self, operation: Operation, bucket: str = "", claim: int = 0, values: dict[int, str] | None = None, **more: Any
    ) -> Message:
        """Send a request that is written down, and write down its outcome."""
        note, call, name = self._crew.recorder.note, self._crew.next_call(), self._life.name
        final = bool(more.get("final"))
        note(Invoked(Recorder.now(), call, name, self._session, operation, bucket, claim, values or {}, final))
        fields = {**more, "bucket_id": bucket, "claim": claim} if bucket else more
        try:
            answer = await self._exchange(operation, **fields)
        except OVER as failure:
            note(Unknown(Recorder.now(), call, repr(failure)[:200]))
            raise

        at = Recorder.now()
        if answer["type"] == "error" and answer["code"] in DOUBTFUL:
            note(Unknown(at, call, answer["code"]))
        elif answer["type"] == "error":
            note(Fail(at, call, answer["code"]))
        elif answer["type"] == "stored":
            counts = answer["stored"], answer["discarded"], answer["closed"], answer["duplicate"]
            note(Ok(at, call, *counts))
        else:
            note(Ok(at, call))
        return answer

    async def _exchange(self, kind: str, **fields: Any) -> Message:
        ref = f"{kind}{self._crew.next_call()}"
        answer = self._answers[ref] = asyncio.get_running_loop().create_future()
        await self._connection.send(msgspec.json.encode({"type": kind, "ref": ref, **fields}).decode())
        return await within(answer, ANSWER_WITHIN)


async def work(words: argparse.Namespace) -> None:
    """Run clients until the process ends; SIGUSR1 calms them."""
    recorder = Recorder(words.history)
    crew = Crew(words.url, recorder, random.Random(words.seed), words.careful, words.run, words.think)

    def calm() -> None:
        crew.calm = True

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, calm)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)

    clients = [loop.create_task(VolunteerLife(name, crew).run()) for name in words.name]
    ending = loop.create_task(ended.wait())
    done, _ = await asyncio.wait([ending, *clients], return_when=asyncio.FIRST_COMPLETED)
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    for task in done:
        task.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", nargs="+", required=True)
    parser.add_argument("--url", nargs="+", required=True)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--run", required=True, help="a name that no other process of the run has")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--think", type=float, required=True, help="seconds before a submit, at most")
    parser.add_argument("--careful", action="store_true")
    uvloop.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
