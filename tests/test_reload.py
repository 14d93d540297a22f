"""SIGHUP: a node takes over what has changed in its file of settings, and nobody is cut off."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from coordinator.config import Settings
from coordinator.errors import ConfigError
from tests.bounded import within
from tests.e2e.test_readme import a_free_port
from tests.harness import Volunteer
from tests.serve.test_certificate import Files
from tests.serve.tools import eventually


class Serving:
    """A node as a process, with a file of settings."""

    def __init__(self, folder: Path, dsn: str) -> None:
        self.files = Files(folder)
        self.port = a_free_port()
        self._config, self._log = folder / "settings.toml", folder / "log"
        self._fixed = {**self.files.settings, "port": self.port, "ops_port": 0, "database": dsn, "log_format": "json"}
        self._config.touch()

    def write(self, **settings: Any) -> None:
        lines = [f"{name} = {json.dumps(value)}" for name, value in {**self._fixed, **settings}.items()]
        self._config.write_text("\n".join(lines))

    def spoil(self) -> None:
        self._config.write_text("port = no number")

    def says(self, event: str) -> list[dict[str, Any]]:
        entries = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [entry for entry in entries if entry["event"] == event]

    def says_twice(self, event: str) -> Callable[[], Awaitable[bool]]:
        async def it_does() -> bool:
            return len(self.says(event)) >= 2

        return it_does

    async def status(self, host: str) -> int:
        """The answer to a request for the dashboard under that host; 0 if nothing answers."""

        def ask() -> int:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.files.trusting())
            with suppress(OSError):
                connection.request("GET", "/", headers={"Host": host})
                return connection.getresponse().status
            return 0

        return await asyncio.to_thread(ask)

    def answers(self, host: str, status: int) -> Callable[[], Awaitable[bool]]:
        async def it_does() -> bool:
            return await self.status(host) == status

        return it_does

    @asynccontextmanager
    async def running(self, *flags: str) -> AsyncIterator[Process]:
        command = [sys.executable, "-m", "coordinator", "serve", "--config", str(self._config), *flags]
        with self._log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, stderr=log)
        try:
            await eventually(self.answers("localhost", 200), "the node serves", 60)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert await within(process.wait(), 60) == 0


@pytest.mark.long
async def test_nodes_take_over_what_has_changed_and_nothing_of_a_file_that_is_wrong(tmp_path: Path, dsn: str) -> None:
    serving = Serving(tmp_path, dsn)
    serving.write(allowed_hosts=["one.example"])
    async with serving.running("--processes", "2") as process, AsyncExitStack() as stack:
        url = f"wss://localhost:{serving.port}/v1/client"
        volunteer = await Volunteer.open(url, stack, ssl=serving.files.trusting())
        await volunteer.hello("volunteer")
        assert await serving.status("two.example") == 403
        await eventually(serving.says_twice("serving"), "both nodes serve", 30)

        serving.write(allowed_hosts=["two.example"], max_sessions=7)
        process.send_signal(signal.SIGHUP)
        await eventually(serving.says_twice("reloaded"), "both nodes have reloaded", 30)
        await eventually(serving.answers("two.example", 200), "the new name is taken", 30)
        await eventually(serving.answers("one.example", 403), "the old name is refused", 30)
        told = serving.says("reloaded")
        # A node that is told twice, as one that has just started may be, has nothing to change the second time.
        assert {name for one in told for name in one["changed"]} == {"allowed_hosts"}
        assert all(one["only_after_a_restart"] == ["max_sessions"] for one in told)

        serving.spoil()
        process.send_signal(signal.SIGHUP)
        await eventually(serving.says_twice("the settings stay as they are"), "both tell that it is wrong", 30)
        assert "settings.toml is not TOML" in serving.says("the settings stay as they are")[0]["reason"]
        assert await serving.status("two.example") == 200
        await volunteer.ok("services")


def test_what_is_left_at_its_default_stays_a_default(tmp_path: Path) -> None:
    """Open by default is not open for what a proxy passes on; open on purpose is."""
    config = tmp_path / "settings.toml"
    config.write_text("")
    settings = Settings(config=config, port=0)
    again, others = settings.reread()
    assert (again.access_to("viewers", behind_proxy=True), others) == ("token", [])

    config.write_text('viewers = "open"')
    again, others = settings.reread()
    assert (again.access_to("viewers", behind_proxy=True), others) == ("open", [])
    assert again.node_name == settings.node_name


def test_a_copy_is_read_from_the_same_sources(tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("drain_grace = 1")
    copy = Settings(config=config, port=5).model_copy(update={"port": 7, "node_name": "other"})
    config.write_text("drain_grace = 2\nmax_sessions = 3")
    again, others = copy.reread()
    assert (again.port, again.node_name, again.drain_grace) == (7, "other", 2)
    assert others == ["max_sessions"]
    config.write_text("drain_grace = -1")
    with pytest.raises(ConfigError, match="drain_grace: expected"):
        copy.reread()
