"""A plugin that does what it is told to, and it is all wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import asyncpg
import msgspec

from coordinator.services import Item, Plugin, Settled
from coordinator.services.contract import Connection

for_ever = threading.Event()


class TroubleResult(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    do: str


class Trouble(Plugin):
    """Fails in every way that there is."""

    name = "trouble"
    title = "Trouble"
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
            case "block":
                for_ever.wait()
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
