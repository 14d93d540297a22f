"""A client process that only holds sessions open: `connect` (names, address), `pings` (how many were answered)."""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from websockets.frames import Opcode

from tests.bench.peer import Peer, volunteer

AT_ONCE = 50


async def main(url: str) -> None:
    """Do what is commanded until standard input ends."""
    peers: list[Peer] = []
    pings = 0
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    def count(peer: Peer) -> None:
        protocol = peer.connection.protocol
        receive = protocol.recv_frame

        def counted(frame: object) -> None:
            nonlocal pings
            pings += getattr(frame, "opcode", None) is Opcode.PING
            receive(frame)  # type: ignore[arg-type]  # whatever it was given

        protocol.recv_frame = counted  # type: ignore[method-assign]  # the library answers pings by itself, and tells nobody

    while line := await reader.readline():
        command = json.loads(line)
        if command["do"] == "connect":
            names = command["names"]
            for at in range(0, len(names), AT_ONCE):
                some = names[at : at + AT_ONCE]
                peers += await asyncio.gather(*(volunteer(url, name, command["address"]) for name in some))
            for peer in peers[-len(names) :]:
                count(peer)
        open_ = sum(peer.connection.close_code is None for peer in peers)
        sys.stdout.write(json.dumps({"open": open_, "pings": pings}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
