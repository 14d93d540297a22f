"""A client in a process of its own, to be killed: asks for one bucket, says so when it has it, and keeps it."""

from __future__ import annotations

import asyncio
import sys

from tests.bench.peer import volunteer


async def main(url: str, name: str) -> None:
    peer = await volunteer(url, name)
    await peer.send("ask", service="dm_check", count=1)
    await peer.until("bucket")
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
