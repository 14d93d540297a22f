"""`coordinator` that observes nothing: no statement counted, no event kept, nothing recorded of the past.

To be held against one that does; what clients did is counted still, since the rules of health go by it.
"""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import asyncpg

from coordinator.cli import main


async def _never(*_: Any) -> None:
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with (
        patch("coordinator.store.pool.counted_by", lambda load: asyncpg.Connection),
        patch("coordinator.observe.events.Events.emit", lambda *_, **__: None),
        patch("coordinator.observe.recorder.Recorder.run", _never),
        patch("coordinator.observe.load.Load.run", _never),
    ):
        main()
