"""The statements that a node asks of the database, counted by name.

A statement's name is that of its constant: `claims.claim` is `_CLAIM` in the module `claims`.  A COPY is named by its
table, `copy.result`; BEGIN, COMMIT and the like by themselves; a statement that has no constant of this program
(of a plugin from elsewhere) is `other`.  So there are never more names than constants.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Any

import asyncpg

UNNAMED_STATEMENT = "other"

TRANSACTION_WORDS = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"})
"""The statements of transactions, by their first word."""

MOST_UNNAMED = 500
"""Texts without a name that are remembered as such; others are looked up each time."""


_uncounted = ContextVar("uncounted", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Do not count the statements that this task runs inside it: they are no work."""
    mark = _uncounted.set(True)
    try:
        yield
    finally:
        _uncounted.reset(mark)


@dataclass(slots=True)
class _Count:
    calls: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StatementCounts:
    """One named statement: how often it ran, the rows it returned or changed, and how long the node waited for it."""

    statement: str
    calls: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StatementSnapshot:
    """The counts of all statements since the node began.

    `pool_waits` counts how often all connections were taken, `pool_seconds` is how long that made the node wait.
    """

    statements: tuple[StatementCounts, ...]
    pool_waits: int
    pool_seconds: float


class StatementStats:
    """Counts the statements that go to the database."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}
        self._by_text: dict[str, _Count] = {}
        self._constants: dict[str, str] = {}
        self._modules = 0
        self._pool_waits = 0
        self._pool_seconds = 0.0

    def snapshot(self) -> StatementSnapshot:
        """Return all counts until now, the dearest statement first."""
        return StatementSnapshot(
            tuple(
                StatementCounts(name, count.calls, count.rows, count.seconds)
                for name, count in sorted(self._counts.items(), key=lambda named: -named[1].seconds)
            ),
            self._pool_waits,
            self._pool_seconds,
        )

    def ran(self, text: str, rows: int, seconds: float) -> None:
        """Count a statement that has ended, well or not."""
        if _uncounted.get():
            return
        count = self._by_text.get(text) or self._count_of(text)
        count.calls += 1
        count.rows += rows
        count.seconds += seconds

    def copied(self, table: str, rows: int, seconds: float) -> None:
        """Count a COPY into a table."""
        count = self._named(f"copy.{table}")
        count.calls += 1
        count.rows += rows
        count.seconds += seconds

    def waited(self, seconds: float) -> None:
        """Count a wait for a connection, since all were taken."""
        self._pool_waits += 1
        self._pool_seconds += seconds

    def _named(self, name: str) -> _Count:
        return self._counts.setdefault(name, _Count())

    def _count_of(self, text: str) -> _Count:
        word = text[:12].lstrip().partition(" ")[0].rstrip(";")
        if word in TRANSACTION_WORDS:  # savepoints have names of their own: not remembered
            return self._named(word.lower())
        if len(sys.modules) != self._modules:
            self._modules, self._constants = len(sys.modules), _constants()
        name = self._constants.get(text, UNNAMED_STATEMENT)
        count = self._named(name)
        if name != UNNAMED_STATEMENT or len(self._by_text) < MOST_UNNAMED:
            self._by_text[text] = count
        return count


def _constants() -> dict[str, str]:
    """Find the names of all statements of this program that are loaded."""
    return {
        value: f"{module.__name__.rpartition('.')[2]}.{constant.strip('_').lower()}"
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("coordinator.")
        for constant, value in list(vars(module).items())
        if isinstance(value, str) and constant.isupper() and constant.startswith("_")
    }


class CountedConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection whose statements are counted by its class's `load`."""

    load: StatementStats
    retire_at = inf
    """When it is to be replaced, by the monotonic clock."""
    server_process = 0
    """The process that serves it, as the server numbers it."""

    async def fetch(self, query: str, *args: object, **options: Any) -> Any:
        begun, rows = perf_counter(), 0
        try:
            found = await super().fetch(query, *args, **options)
            rows = len(found)
        finally:
            self.load.ran(query, rows, perf_counter() - begun)
        return found

    async def fetchrow(self, query: str, *args: object, **options: Any) -> Any:
        begun, rows = perf_counter(), 0
        try:
            found = await super().fetchrow(query, *args, **options)
            rows = found is not None
        finally:
            self.load.ran(query, rows, perf_counter() - begun)
        return found

    async def fetchval(self, query: str, *args: object, **options: Any) -> Any:
        begun, rows = perf_counter(), 0
        try:
            found = await super().fetchval(query, *args, **options)
            rows = found is not None
        finally:
            self.load.ran(query, rows, perf_counter() - begun)
        return found

    async def execute(self, query: str, *args: object, **options: Any) -> str:
        begun, rows = perf_counter(), 0
        try:
            status: str = await super().execute(query, *args, **options)
            rows = rows_of(status)
        finally:
            self.load.ran(query, rows, perf_counter() - begun)
        return status

    async def copy_records_to_table(self, table_name: str, **options: Any) -> str:
        return await self._copied(table_name, super().copy_records_to_table(table_name, **options))

    async def copy_to_table(self, table_name: str, **options: Any) -> str:
        return await self._copied(table_name, super().copy_to_table(table_name, **options))

    async def _copied(self, table: str, copying: Awaitable[str]) -> str:
        begun, rows = perf_counter(), 0
        try:
            status = await copying
            rows = rows_of(status)
        finally:
            self.load.copied(table, rows, perf_counter() - begun)
        return status


def counted_by(load: StatementStats) -> type[CountedConnection]:
    """Make a class of connections whose statements are counted there."""
    return type("CountedConnection", (CountedConnection,), {"load": load})


def rows_of(status: str) -> int:
    """Read the number of rows in a command tag: `UPDATE 5`, `INSERT 0 3`, `COPY 180`; 0 if it tells none."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdecimal() else 0
