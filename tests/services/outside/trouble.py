"""A plugin that does what it is told to, and it is all wrong."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec

from coordinator.services import Item, Plugin, Settled
from coordinator.services.contract import Connection

for_ever = threading.Event()

_kept: list[bytes] = []


class TroubleResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    do: str


class TroubleProfile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    word: str = ""

    def __post_init__(self) -> None:
        if self.word == "hangs":
            for_ever.wait()


class Trouble(Plugin):
    """Fails in every way that there is."""

    name = "trouble"
    title = "Trouble"
    Profile = TroubleProfile
    Result = TroubleResult

    def select(self, item: Item) -> Any:
        return "perhaps" if item.key == "nonsense" else True

    def check(self, item: Item, result: TroubleResult) -> Any:
        match result.do:
            case "refuse":
                raise ValueError("that cannot be")
            case "raise":
                raise KeyError("a fault of the plugin")
            case "exit":
                raise SystemExit(3)
            case "exit hard":
                os._exit(3)
            case "block":
                for_ever.wait()
            case "compute":
                re.match(r"(a+)+$", "a" * 40 + "b")  # never gives the interpreter back
            case "eat":
                bytearray(100_000_000_000)
            case "leak":
                _kept.extend(bytes(1_000_000) for _ in range(10_000))
            case "talk":
                sys.stdout.write("nothing that the node reads\n")
            case "nonsense":
                return "wonderful"
        return None

    def label(self, result: TroubleResult) -> Any:
        match result.do:
            case "label raises":
                raise KeyError("a fault of the plugin")
            case "label answers a number":
                return 7
            case "label tells a story":
                return "once upon a time " * 10
        return result.do.partition(" ")[0]

    async def store(self, connection: Connection, settled: Sequence[Settled]) -> None:
        for one in settled:
            match one.result.do:
                case "store raises":
                    raise KeyError("a fault of the plugin")
                case "store has no table":
                    await connection.execute("INSERT INTO nowhere VALUES (1)")
                case "store swallows":
                    with suppress(asyncpg.PostgresError):
                        await connection.execute("SELECT 1 / 0")
                case "store sleeps":
                    await asyncio.sleep(3600)
                case "store sends nonsense":
                    await connection.fetchval("SELECT $1::int", "one")
