"""A client in a process of its own, to be killed: asks for one bucket, says so when it has it, and keeps it.

Without a name it only holds a connection to that port of this machine.
"""

from __future__ import annotations

import asyncio
import sys

from tests.bench.peer import volunteer


async def main(where: str, name: str | None = None) -> None:
    if name is None:
        held: object = await asyncio.open_connection("127.0.0.1", int(where))
    else:
        held = peer = await volunteer(where, name)
        await peer.send("ask", service="dm_check", count=1)
        await peer.until("bucket")
    sys.stdout.write("{}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()
    del held  # until then it is open


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
