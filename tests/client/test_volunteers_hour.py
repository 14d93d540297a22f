"""An hour as a volunteer, in half a minute: behind a proxy, with a wrong clock, limits, a sleep and a lost tier.

Everything is real but time: a node, `coordinator work` as a process, an HTTP proxy by which alone it gets out, and the
stand-in for the outside API.  The log that the volunteer reads is held as sentences, in their order.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.standin import StandIn
from coordinator.standin_troubles import ApiFault
from tests.bounded import within
from tests.client.proxy import HttpProxy
from tests.client.trouble import settled
from tests.conftest import StartServer
from tests.harness import Admin, Server
from tests.serve.tools import eventually

pytestmark = pytest.mark.long

SERVER, API = "work.example:8765", "http://api.example"


class Home:
    """The volunteer's machine: a daemon, and what it has said so far."""

    def __init__(self, data: Path, server_proxy: str, api_proxy: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.environment = {**inherited, "HTTPS_PROXY": server_proxy, "HTTP_PROXY": api_proxy, "X_TOKEN": "free"}
        self.words = [
            *("work", "--server", f"ws://{SERVER}", "--plaintext", "--client-id", "ada", "--data", str(data)),
            *("--service", "dm_check", "--profile", '{"source": "ada"}', "--concurrency", "4"),
            *("--checker", "coordinator.client.x_api:dm_check"),
            *("--option", f"base_url={API}", "--option", "token=env:X_TOKEN", "--option", "requests_per_window=0"),
        ]
        self.lines: list[str] = []
        self._said = asyncio.Condition()
        self._seen = 0

    async def __aenter__(self) -> Home:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator", *self.words),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=self.environment,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._said:
                self.lines.append(re.sub(r"^\S+ \S+ ", "", line.decode().rstrip()))
                self._said.notify_all()

    async def says(self, words: str, within: float = 20.0) -> str:
        """Wait for a line with these words behind those that were waited for before; returns it."""
        async with asyncio.timeout(within), self._said:
            while True:
                for number, line in enumerate(self.lines[self._seen :], start=self._seen + 1):
                    if words in line:
                        self._seen = number
                        return line
                await self._said.wait()


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    async with StandIn(latency=0.02, jitter=0.01, requests=60, window=3.0) as api:
        yield api


async def test_an_hour_as_a_volunteer(start_server: StartServer, api: StandIn, tmp_path: Path) -> None:
    server = await start_server(
        ping_interval=0.5, ping_timeout=0.5, allowed_hosts="work.example", registration="open", viewers="open"
    )
    admin = await server.admin()
    await admin.ok("service.configure", service="dm_check", settings={"bucket_size": 20})
    await admin.add(80, services=["dm_check"])
    api.troubles.clock = 3600.0  # of the two clocks one is wrong

    async with (
        HttpProxy(server.node.port) as to_server,
        HttpProxy(int(api.url.rpartition(":")[2])) as to_api,
        Home(tmp_path / "ada", to_server.url, to_api.url) as home,
    ):
        await hour(server, admin, api, home)
    assert set(to_server.asked) == {SERVER}
    assert set(to_api.asked) == {"api.example"}


async def gone(admin: Admin) -> None:
    """Wait until the server has given up the session."""

    async def away() -> bool:
        return not (await admin.ok("client.show", client_id="ada"))["connected"]

    await eventually(away, "the server does not notice that the machine sleeps")


async def hour(server: Server, admin: Admin, api: StandIn, home: Home) -> None:
    await home.says("connected to ws://work.example:8765/v1/client as ada")
    await home.says("20 to check")
    await settled(server, 80)
    assert api.answers[429] < 20  # waits are by the API's own clock

    # The lid is closed for longer than the server waits; others get the work meanwhile.
    await admin.add(40, "later", services=["dm_check"])
    home.process.send_signal(signal.SIGSTOP)
    await gone(admin)
    home.process.send_signal(signal.SIGCONT)
    assert "this machine slept" in await home.says("Trying again in")
    await home.says("connected to")
    await settled(server, 120)

    # The API is out for a while.
    api.troubles.down = 503
    await admin.add(20, "third", services=["dm_check"])
    await home.says("the outside API is out: A page came instead of the API's answer. (503")
    api.troubles.down = None
    await home.says("the outside API works again")
    await settled(server, 140)

    # The free tier has not what the checker asks for: that is about the volunteer, and ends the daemon.
    api.troubles.refusing = ApiFault.of(403, 453, "You currently have access to a subset of X API V2 endpoints")
    await admin.add(20, "fourth", services=["dm_check"])
    await home.says("get a higher one")
    assert await within(home.process.wait(), 20) == 1
