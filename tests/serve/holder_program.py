"""A client in a process of its own, to be killed: it holds a bucket on each connection, and prints each bucket."""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.client import connect

from tests.harness import secret_of


async def hold(url: str, client_id: str) -> None:
    """Hold a bucket on one connection."""
    async with connect(url) as connection:

        async def say(kind: str, **fields: object) -> None:
            await connection.send(json.dumps({"type": kind, **fields}))

        await say("hello", protocol=1, client_id=client_id, secret=secret_of(client_id))
        choice = {"service": "dm_check", "profile": {"source": client_id}}
        await say("register", screen_name=client_id, services=[choice])
        await say("ask", service="dm_check", count=1)
        async for frame in connection:
            if json.loads(frame)["type"] == "bucket":
                sys.stdout.write(f"{frame!s}\n")
                sys.stdout.flush()


async def main(url: str, *client_ids: str) -> None:
    """Open all connections."""
    await asyncio.gather(*(hold(url, client_id) for client_id in client_ids))


asyncio.run(main(*sys.argv[1:]))
