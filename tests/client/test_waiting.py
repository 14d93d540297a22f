"""A wait as the volunteer's side has it: handed on by the library, and told in words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from coordinator.client.wait_words import words_for
from coordinator.wire.frames import Waiting
from tests.client.conftest import NewClient
from tests.client.scripted import ScriptedServer
from tests.serve.tools import eventually

NOW = datetime(2026, 1, 31, 18, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("reason", "text", "until", "words"),
    [
        ("paused", "the service is paused", None, "waits: the service is paused"),
        (
            "backing_off",
            "it gave back 4 buckets in a row",
            "2026-01-31T16:05:00Z",
            "slowed down until 18:05 because it gave back 4 buckets in a row",
        ),
        ("reported", "it cannot work", "2026-01-31T16:00:20.5Z", "waits until 18:00:20: it cannot work"),
        ("reported", "it cannot work", "2026-02-01T01:00:00Z", "waits until 2026-02-01 03:00: it cannot work"),
        ("no_items", "all is done", "soon", "waits: all is done"),
    ],
)
def test_words(reason: Any, text: str, until: str | None, words: str) -> None:
    assert words_for(Waiting(reason, text, until), NOW) == words


GAVE_BACK = {"reason": "backing_off", "text": "it gave back 4 buckets in a row", "until": "2026-01-31T16:05:00Z"}


async def until(good: Callable[[], bool]) -> None:
    async def is_good() -> bool:
        return good()

    await eventually(is_good, "the library does not know it")


async def test_the_library_hands_it_on_and_what_is_dropped_is_asked_for_again(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coordinator.client")
    async with new_client() as client:
        peer = await server.work()
        stream = client.buckets("dm_check")
        ask = await peer.read("ask")
        await peer.answer(ask, "asked", service="dm_check", count=1, pending=1, limit=10, waiting=GAVE_BACK)
        await until(lambda: stream.waiting == Waiting(**GAVE_BACK))  # type: ignore[arg-type]

        await peer.say("waiting", service="dm_check", reason="no_items", text="all is done")
        await until(lambda: stream.waiting == Waiting("no_items", "all is done", None))
        await peer.bucket("b", 1, 1)
        bucket = await anext(stream)
        assert stream.waiting is None

        await bucket.settle(1, dm="DM")
        await peer.stored(await peer.read("submit"))
        await peer.asked(await peer.read("ask"))
        await peer.say("waiting", service="dm_check", reason="served", text="the service was revoked")
        await peer.asked(await peer.read("ask"))
        peer.carry_on()
    said = [line for line in caplog.messages if line.startswith("dm_check: ")]
    assert [line for line in said if "slowed down until" in line and "4 buckets in a row" in line] == said[:1]
    assert any("dropped" in line for line in said)
