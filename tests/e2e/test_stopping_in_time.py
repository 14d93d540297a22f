"""A server that is told to end while volunteers are busy: it ends within the time that Docker and systemd give."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from coordinator.client import Client
from coordinator.client.daemon import Daemon
from coordinator.client.service_work import ServiceWork
from tests.bounded import within

from .test_readme import PROGRAM, Serving, a_free_port, folder, wait_until_ready

pytestmark = [pytest.mark.long, pytest.mark.measured]

__all__ = ["folder"]

DAEMONS = 8
DOCKER_GIVES = 10.0
"""Seconds from SIGTERM to SIGKILL."""

CONTAINERFILE = Path(__file__).parents[2] / "deploy/container/Containerfile"


async def test_eight_busy_daemons_keep_it_from_nothing(folder: Path) -> None:
    serving = Serving(folder, a_free_port())
    busy: set[str] = set()
    all_busy = asyncio.Event()

    def daemon(name: str) -> Daemon:
        async def check(item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
            busy.add(name)
            if len(busy) == DAEMONS:
                all_busy.set()
            await asyncio.Event().wait()  # for longer than any grace
            return {}

        client = Client(serving.url, client_id=name, data=folder / "daemons")
        return Daemon(client, [ServiceWork("dm_check", check, {"source": name})], stop_grace=0.1)

    process = start_as_in_the_container(serving)
    async with AsyncExitStack() as stack:
        stack.callback(process.kill)
        await asyncio.to_thread(wait_until_ready, serving.port, process)
        (folder / "accounts.csv").write_text("key\n" + "".join(f"a{n}\n" for n in range(4000)))
        importing = ["item", "import", "accounts.csv", "--service", "dm_check", "--data", "./data"]
        await asyncio.to_thread(serving.run, importing)

        daemons = [daemon(f"daemon-{n}") for n in range(DAEMONS)]
        tasks = [asyncio.create_task(one.run()) for one in daemons]
        stack.push_async_callback(asyncio.wait, tasks)
        for one in daemons:
            stack.callback(one.stop)

        await within(all_busy.wait(), 30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, DOCKER_GIVES) == 0
    assert "database system is shut down" in (folder / "data/postgres.log").read_text().splitlines()[-1]


def start_as_in_the_container(serving: Serving) -> subprocess.Popen[bytes]:
    settings = dict(re.findall(r"(COORDINATOR_DRAIN_GRACE)=(\d+)", CONTAINERFILE.read_text()))
    assert settings
    words = ["serve", "--data", serving.data, "--port", str(serving.port), "--ops-port", "0"]
    environment = {**os.environ, **settings}
    return subprocess.Popen([*PROGRAM, *words], cwd=serving.folder, stderr=subprocess.DEVNULL, env=environment)
