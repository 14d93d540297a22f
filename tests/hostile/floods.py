"""The floods of strangers, one function each: it goes on for so many seconds and returns how often it did its thing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.harness import secret_of
from tests.hostile.wire import Wire, frame_of, message, registration

CLIENT, STATS, ADMIN = "/v1/client", "/v1/stats", "/v1/admin"

ATTACKER = "203.0.113.66"
"""The address that all floods come from, by what a trusted proxy tells."""

TOPICS = ["overview", "services", "clients", "buckets", "nodes", "database", "events"]

MEGABYTE = 1_000_000

MOST_PROBES = 400
"""Probes that wait for their answer at once."""

BEAT = 0.01
"""Seconds between two volleys of a flood that has a rate."""


@dataclass(frozen=True, slots=True)
class Target:
    """A node under attack, for so many seconds; `token` is an admin's, for what only they can do."""

    port: int
    seconds: float
    token: str


async def paced(target: Target, rate: float, volley: Callable[[int], Awaitable[int]]) -> int:
    """Call `volley` with how many are due, `rate` of them a second; returns the sum of what it did."""
    loop = asyncio.get_running_loop()
    begun = now = loop.time()
    due, done = 0, 0
    while (now := loop.time()) < begun + target.seconds:
        wanted = int((now - begun) * rate) - due
        due += wanted
        if wanted:
            done += await volley(min(wanted, int(rate)))
        await asyncio.sleep(BEAT)
    return done


class Client:
    """A client that comes back as soon as it was closed."""

    def __init__(self, target: Target, name: str) -> None:
        self._target = target
        self._name = name
        self._wire: Wire | None = None

    async def wire(self) -> Wire:
        """Its connection."""
        if self._wire is None or not self._wire.open_:
            self._wire = await Wire.open(self._target.port, CLIENT, ATTACKER)
            await self._wire.hello(self._name)
        return self._wire


async def messages(target: Target) -> int:
    """10,000 messages a second from one client."""
    client, frame = Client(target, "flood"), message("services")

    async def volley(count: int) -> int:
        with suppress(OSError):
            await (await client.wire()).write(frame * count)
            return count
        return 0

    return await paced(target, 10_000, volley)


async def _visits(target: Target, rate: float, addresses: Sequence[str]) -> int:
    """Connect so often a second, from each address in turn: a client of its own says hello and goes."""
    names = iter(range(10**9))

    async def visit() -> int:
        number = next(names)
        with suppress(OSError):
            wire = await Wire.open(target.port, CLIENT, addresses[number % len(addresses)])
            await wire.hello(f"visitor{number}", register=False)
            wire.cut()
            return 1
        return 0

    async def volley(count: int) -> int:
        return sum(await asyncio.gather(*(visit() for _ in range(min(count, MOST_PROBES)))))

    return await paced(target, rate, volley)


async def connections(target: Target) -> int:
    """200 connections a second from one address."""
    return await _visits(target, 200, [ATTACKER])


async def addresses(target: Target) -> int:
    """1,000 connections a second from 200 addresses."""
    return await _visits(target, 1000, [f"198.51.100.{number}" for number in range(200)])


async def registrations(target: Target) -> int:
    """1,000 registrations a minute, each of another identity."""
    names = iter(range(10**9))

    async def volley(count: int) -> int:
        for _ in range(count):
            with suppress(OSError):
                wire = await Wire.open(target.port, CLIENT, ATTACKER)
                await wire.hello(f"identity{os.getpid()}_{next(names)}")
                wire.cut()
        return count

    return await paced(target, 1000 / 60, volley)


async def _unread(target: Target, path: str, number: int, hello: bytes, ask: bytes) -> int:
    """Say hello, then ask for as much as can be, and read nothing; returns how often it asked."""
    loop = asyncio.get_running_loop()
    end, asked = loop.time() + target.seconds, 0
    with suppress(OSError):
        wire = await Wire.open(target.port, path, ATTACKER, receive_buffer=4096)
        await wire.write(hello)
        await wire.heard()
        wire.transport.pause_reading()
        await asyncio.sleep(number * 0.002)
        while wire.open_ and loop.time() < end:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await wire.write(ask * 10)
                    asked += 10
            await asyncio.sleep(0.1)
        wire.cut()
    return asked


async def clients_unread(target: Target) -> int:
    """50 clients that ask 100 times a second each for the services, and read nothing."""
    peers = []
    for number in range(50):
        name = f"reader{number}"
        hello = message("hello", protocol=1, client_id=name, secret=secret_of(name)) + registration(name)
        peers.append(_unread(target, CLIENT, number, hello, message("services")))
    return sum(await asyncio.gather(*peers))


async def viewers_unread(target: Target) -> int:
    """50 viewers that subscribe to everything 100 times a second each, and read nothing."""
    hello, ask = message("hello", protocol=1), message("subscribe", topics=TOPICS, interval=0.25)
    return sum(await asyncio.gather(*(_unread(target, STATS, number, hello, ask) for number in range(50))))


async def admins_unread(target: Target) -> int:
    """50 admins that list the clients 100 times a second each, and read nothing."""
    hello, ask = message("hello", protocol=1, token=target.token), message("client.list", limit=1000)
    return sum(await asyncio.gather(*(_unread(target, ADMIN, number, hello, ask) for number in range(50))))


async def handshakes(target: Target) -> int:
    """100 connections that send their handshake byte by byte."""

    async def slow() -> int:
        sent = 0
        loop = asyncio.get_running_loop()
        end = loop.time() + target.seconds
        while loop.time() < end:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", target.port)
                for byte in b"GET /v1/client HTTP/1.1\r\nHost: localhost\r\n" * 10:
                    if loop.time() >= end:
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    sent += 1
                    await asyncio.sleep(0.1)
                writer.close()
        return sent

    return sum(await asyncio.gather(*(slow() for _ in range(100))))


async def strangers(target: Target) -> int:
    """16 connections that nobody knows, sending the largest frames that they may, of wide JSON."""
    wide = b'{"type":"hello","x":[' + b",".join([b"[]"] * 21_000) + b"]}"
    frame = frame_of(wide)
    assert len(wide) < 64 * 1024

    async def volley(wires: list[Wire]) -> int:
        sent = 0
        for number, wire in enumerate(wires):
            with suppress(OSError):
                if not wire.open_:
                    wires[number] = wire = await Wire.open(target.port, CLIENT, ATTACKER)
                await wire.write(frame)
                sent += 1
        return sent

    wires = [await Wire.open(target.port, CLIENT, ATTACKER) for _ in range(16)]
    return await paced(target, 100, lambda _: volley(wires))


def bad_submits() -> list[bytes]:
    """Frames of a megabyte that are no good, each dear in another way."""
    head = '"bucket_id":"00000000-0000-4000-8000-000000000000","claim":1,"final":true'
    wide = ",".join(["[]"] * (MEGABYTE // 3))
    rows = ",".join(['{"item":1}'] * (MEGABYTE // 11))
    texts = (
        f'{{"type":"submit",{head},"results":[{wide}]}}',
        f'{{"type":"submit",{head},"results":[{rows}]}}',
        f'{{"type":"submit",{head},"x":1,"results":[{wide}]}}',
        f'{{"type":"hello","x":[{wide},"\\u0000"]}}',
        f'{{"type":"join","service":"dm_check","profile":{{"source":[{wide}]}}}}',
        f'{{"type":"submit",{head},"results":[{wide}',
        json.dumps({"type": "submit", "bucket_id": "x" * MEGABYTE, "claim": 1, "results": []}),
    )
    return [frame_of(text.encode()) for text in texts]


async def submits(target: Target) -> int:
    """Bad submits and other bad frames of a megabyte from one client, as many as the server takes."""
    client, frames = Client(target, "submitter"), bad_submits()
    sent = 0

    async def volley(_: int) -> int:
        nonlocal sent
        with suppress(OSError):
            await (await client.wire()).write(frames[sent % len(frames)])
            sent += 1
        return 1

    await paced(target, 100, volley)
    return sent


async def storms(target: Target) -> int:
    """Ten clients that register, join, leave and unregister without end."""
    choice = {"source": "storm"}
    frames = [
        message("join", service="dm_check", profile=choice) + message("leave", service="dm_check"),
        message("ask", service="dm_check", count=1) + message("leave", service="dm_check"),
        message("join", service="dm_check", profile=choice) + message("unregister"),
    ]
    clients = [Client(target, f"storm{number}") for number in range(10)]
    done = 0

    async def volley(count: int) -> int:
        nonlocal done
        for number in range(count):
            client = clients[number % len(clients)]
            with suppress(OSError):
                wire = await client.wire()
                await wire.write(registration("storm") + frames[done % len(frames)])
                done += 1
        return count

    await paced(target, 500, volley)
    return done


async def vain(target: Target) -> int:
    """Ten clients that ask 1,000 times a second, hold what they may, and withdraw."""
    frame = message("ask", service="dm_check", count=1) + message("ask", service="dm_check", count=0)
    clients = [Client(target, f"vain{number}") for number in range(10)]
    done = 0

    async def volley(count: int) -> int:
        nonlocal done
        for number in range(count):
            with suppress(OSError):
                await (await clients[number % len(clients)].wire()).write(frame)
                done += 1
        return count

    await paced(target, 1000, volley)
    return done


async def probes(target: Target) -> int:
    """`GET /readyz` 2,000 times a second; returns how often it was answered that the node is ready."""
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    ready = 0
    under_way: set[asyncio.Task[None]] = set()

    async def probe() -> None:
        nonlocal ready
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(request)
            answer = await reader.read(65536)
            ready += answer.startswith(b"HTTP/1.1 200")
            writer.close()

    async def volley(count: int) -> int:
        for _ in range(min(count, MOST_PROBES - len(under_way))):
            task = asyncio.create_task(probe())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        return 0

    await paced(target, 2000, volley)
    if under_way:
        await asyncio.wait(under_way, timeout=1)
    for task in under_way:
        task.cancel()
    return ready


async def viewers(target: Target) -> int:
    """200 viewers of all topics, every quarter of a second."""
    hello, subscribe = message("hello", protocol=1), message("subscribe", topics=TOPICS, interval=0.25)
    wires = []
    for _ in range(200):
        wire = await Wire.open(target.port, STATS, ATTACKER)
        await wire.write(hello)
        await wire.heard()
        await wire.write(subscribe)
        wires.append(wire)
    await asyncio.sleep(target.seconds)
    taken = sum(wire.taken for wire in wires)
    for wire in wires:
        wire.cut()
    return taken


async def _pages(target: Target, frame_of_number: Callable[[int], bytes]) -> int:
    """16 viewers that ask for pages, each for the next as soon as something comes; returns how many they asked for."""
    end = asyncio.get_running_loop().time() + target.seconds
    asked = 0

    async def watch() -> None:
        nonlocal asked
        with suppress(OSError):
            wire = await Wire.open(target.port, STATS, ATTACKER)
            await wire.write(message("hello", protocol=1))
            while wire.open_ and asyncio.get_running_loop().time() < end:
                await wire.heard()
                await wire.write(frame_of_number(asked))
                asked += 1
            wire.cut()

    with suppress(TimeoutError):
        async with asyncio.timeout(target.seconds):
            await asyncio.gather(*(watch() for _ in range(16)))
    return asked


async def searches(target: Target) -> int:
    """16 viewers that search the clients, never twice for the same, and have them counted."""
    return await _pages(
        target,
        lambda number: message(
            "get", topic="clients", filter={"search": f"member{number}", "sort": "settled"}, count=True
        ),
    )


async def long_pages(target: Target) -> int:
    """16 viewers that ask for the longest page without end."""
    frame = message("get", topic="clients", limit=1000)
    return await _pages(target, lambda _: frame)


async def nothing(target: Target) -> int:
    """No flood, but a process that takes all the processor that it gets: what is slow beside it is not the server."""
    loop = asyncio.get_running_loop()
    end, turns = loop.time() + target.seconds, 0
    while loop.time() < end:
        sum(range(10_000))
        turns += 1
    return turns


FLOODS: Mapping[str, Callable[[Target], Awaitable[int]]] = {
    flood.__name__: flood
    for flood in (
        nothing,
        messages,
        connections,
        addresses,
        registrations,
        clients_unread,
        viewers_unread,
        admins_unread,
        handshakes,
        strangers,
        submits,
        storms,
        vain,
        probes,
        viewers,
        searches,
        long_pages,
    )
}
