"""A wait that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(awaitable: Awaitable[T], seconds: float) -> T:
    """Wait for something, at most so many seconds; TimeoutError after that.

    `asyncio.wait_for` of Python 3.11 drops a cancellation that comes in the moment in which the wait ends: a volunteer
    that a test had ended went on for ever.
    """
    async with asyncio.timeout(seconds):
        return await awaitable
