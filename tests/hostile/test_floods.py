"""Floods of strangers, a third of a second each: nobody else is disconnected, forgotten or held up for long."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.bench.figures import percentile
from tests.bench.world import Program, world
from tests.hostile.bystander import Bystanders
from tests.hostile.floods import FLOODS
from tests.hostile.measure import MIB, STRANGERS_WELCOME

pytestmark = [pytest.mark.measured, pytest.mark.long]

SECONDS = 0.3

MOST_TIMES_QUIET = 10.0
AT_LEAST = 0.5
"""Seconds from ask to bucket, in the median, that are no failure whatever it was quiet: machines are shared."""

LONGEST = 2.0
"""Seconds that no ask takes."""


ENOUGH_ASKS, TRIES = 5, 3
"""Asks of which a median tells something; a flood beside which there were fewer is tried again, since on a machine that
others use a third of a second may hold but one."""


async def test_floods() -> None:
    async with world() as here, AsyncExitStack() as stack:
        await here.start(flags=STRANGERS_WELCOME)
        flooder = await Program.start("tests.hostile.flooder")
        stack.push_async_callback(flooder.end)
        bystanders = await Bystanders.of(here, stack)
        await bystanders.fill(here, (2 * len(FLOODS) + 4) * SECONDS)
        await bystanders.asks(0.2)
        quiet, before = percentile(await bystanders.asks(SECONDS), 0.5), here.resident()
        port = int(here.url.rpartition(":")[2])

        failed = {}
        for flood in FLOODS:
            for left in reversed(range(TRIES)):
                await flooder.say(flood, port=port, seconds=SECONDS, token=here.token)
                during = await bystanders.asks(SECONDS)
                assert (await flooder.hear())["count"] > 0, flood
                median, longest = percentile(during, 0.5), max(during)
                held_up = median > max(MOST_TIMES_QUIET * quiet, AT_LEAST)
                if longest > LONGEST or (held_up and (len(during) >= ENOUGH_ASKS or not left)):
                    failed[flood] = f"median {median:.3f} s, longest {longest:.3f} s"
                if not held_up or flood in failed:
                    break
        assert not failed, f"quiet it takes {quiet:.4f} s"
        assert bystanders.disconnected == 0
        assert here.resident() - before < 150 * MIB
