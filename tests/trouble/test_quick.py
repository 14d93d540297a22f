"""Clients see `unavailable` on Postgres' bad days, and the node works on when they are over."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.trouble.kinds import KINDS
from tests.trouble.server import troubled_postgres
from tests.trouble.watch import Sight, watching

pytestmark = pytest.mark.measured

SECONDS = 0.4


@pytest.mark.long
def test_trouble_is_waited_out(tmp_path: Path) -> None:
    """All other kinds are tried by `python -m tests.trouble`."""

    async def try_all() -> list[Sight]:
        async with watching(postgres, tmp_path) as watch:
            assert await watch.kept_alive()
            return [await watch.see(kind, SECONDS) for kind in KINDS if kind.quick]

    with troubled_postgres() as postgres:
        sights = asyncio.run(try_all())
    assert [(sight.kind.name, sight.wrong) for sight in sights if sight.wrong] == []
