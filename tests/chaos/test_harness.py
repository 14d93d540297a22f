"""The parts that break things do so as told, and the mutations still fit the program."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from tests.chaos.faults import KINDS, OF_THE_SERVER, plan
from tests.chaos.proxy import Proxy


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back all that it gets."""
    answering = set[asyncio.Task[None] | None]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        if answering:
            await asyncio.wait([task for task in answering if task is not None])


async def test_a_proxy_passes_on_until_it_is_told_otherwise(echo: int) -> None:
    async with Proxy(lambda: echo) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"

        proxy.stall("up")
        writer.write(b"two")
        coming = asyncio.ensure_future(reader.readexactly(3))
        await asyncio.wait([coming], timeout=0.05)
        assert not coming.done()
        proxy.heal()
        assert await coming == b"two"

        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_proxy_loses_what_is_sent_and_the_end_of_it(echo: int, direction: str) -> None:
    async with Proxy(lambda: echo) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"

        proxy.swallow("up" if direction == "up" else "down")
        writer.write(b"two")
        writer.write_eof()
        coming = asyncio.ensure_future(reader.read(3))
        await asyncio.wait([coming], timeout=0.05)
        assert not coming.done()
        coming.cancel()

        other, its_writer = await asyncio.open_connection("127.0.0.1", proxy.port)  # new ones are whole
        its_writer.write(b"new")
        assert await other.readexactly(3) == b"new"
        writer.close()
        its_writer.close()


async def test_a_proxy_without_a_target_ends_whoever_comes() -> None:
    async with Proxy(lambda: None) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


def test_a_seed_gives_the_same_faults_and_each_kind_has_its_turn() -> None:
    planned = plan(7, 120.0, list(KINDS), every=1.0)
    assert planned == plan(7, 120.0, list(KINDS), every=1.0)
    assert planned != plan(8, 120.0, list(KINDS), every=1.0)
    assert {fault.kind for fault in planned} == KINDS.keys() >= OF_THE_SERVER
    assert all(fault.after < 120.0 for fault in planned)


def test_every_mutation_still_fits_the_program() -> None:
    apply = "from tests.chaos.mutations import MUTATIONS\nfor mutation in MUTATIONS.values(): mutation.apply()"
    subprocess.run([sys.executable, "-c", apply], check=True)
