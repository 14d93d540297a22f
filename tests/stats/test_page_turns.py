"""Viewers that ask for pages without end take no turn from others, and have no more than their share of the time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from coordinator.errors import RateLimited
from coordinator.stats import page_turns
from coordinator.stats.page_turns import BURST, MOST_WAITING, PART_OF_THE_TIME, PageTurns, Share

A = Share("a")


class Turns:
    """Turns that a test lets end one by one; `taken` are the shares in the order of their turns."""

    def __init__(self) -> None:
        self.turns = PageTurns()
        self.taken: list[str] = []
        self._go_on = asyncio.Semaphore(0)
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, *shares: str) -> None:
        """Ask for a turn of each share, one after the other."""
        for share in shares:
            self._tasks.append(asyncio.create_task(self._turn(share)))
            await asyncio.sleep(0)

    async def _turn(self, share: str) -> None:
        async with self.turns.turn(Share(share)):
            self.taken.append(share)
            await self._go_on.acquire()

    async def end(self, turns: int = 1) -> None:
        """Let so many turns end."""
        for _ in range(turns):
            self._go_on.release()
            for _ in range(5):  # as long as it takes until the next one has begun
                await asyncio.sleep(0)

    def cancel(self, place: int) -> None:
        """Cancel a turn, be it one that waits."""
        self._tasks[place].cancel()


async def test_shares_take_turns_however_often_each_asks() -> None:
    turns = Turns()
    await turns.ask("a", "a", "a", "a", "b", "c", "b")
    await turns.end(7)
    assert turns.taken == ["a", "b", "c", "a", "b", "a", "a"]


async def test_who_goes_while_it_waits_or_is_called_holds_nobody_up() -> None:
    turns = Turns()
    await turns.ask("a", "b", "c", "d", "e")
    turns.cancel(1)
    await turns.end()
    assert turns.taken == ["a", "c"]

    turns._go_on.release()
    await asyncio.sleep(0)  # d is called now, and goes before it has heard of it
    turns.cancel(3)
    for _ in range(5):
        await asyncio.sleep(0)
    assert turns.taken == ["a", "c", "e"]
    await turns.end()


async def test_who_has_used_its_share_rests_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(page_turns, "monotonic", lambda: now)
    turns = Turns()
    await turns.ask("a", "a", "b", "a")
    now += BURST * 1.5
    await turns.end(2)
    assert turns.taken == ["a", "b"]

    now += 0.5 * BURST / PART_OF_THE_TIME
    await turns.ask("b")
    await turns.end()
    assert turns.taken == ["a", "b", "a", "b"]


async def test_who_is_trusted_need_not_rest() -> None:
    turns, operator = PageTurns(), Share("an operator", trusted=True)
    for _ in range(2):
        async with asyncio.timeout(10), turns.turn(operator):
            turns.charge(operator, 1000.0)


async def test_who_rests_is_called_when_it_has_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_turns, "BURST", 0.0)
    turns = PageTurns()
    for _ in range(2):
        async with asyncio.timeout(10), turns.turn(A):
            pass


async def test_only_so_many_of_one_share_wait() -> None:
    turns = PageTurns()

    async def wait() -> None:
        async with turns.turn(A):
            pass

    async with turns.turn(A):
        waiting = [asyncio.create_task(wait()) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await wait()

        for task in waiting:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting)
    assert not turns._waiting
