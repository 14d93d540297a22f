"""The daemon, and `coordinator work`, against a real server that follows a script."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from coordinator.cli.work import work
from coordinator.client import SessionEnded, UpstreamLimited
from coordinator.client.backoff import Backoff
from coordinator.client.checker_program import CheckerProgram, ProgramFailed
from coordinator.client.checkers import CheckFailed
from coordinator.client.daemon import Daemon
from coordinator.client.limited_log import LINES
from coordinator.client.service_work import ServiceWork
from coordinator.errors import ConfigError
from tests.bounded import within

from .conftest import NewClient
from .scripted import Peer, ScriptedServer
from .trouble import logged

Record = dict[str, Any]


async def check(item: Record, profile: Record) -> Record:
    return {"dm": profile.get("answer", "DM")}


async def echo_key(item: Record, profile: Record) -> Record:
    raise ValueError(item["key"])


@asynccontextmanager
async def running(daemon: Daemon) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(daemon.run())
    try:
        yield task
    finally:
        daemon.stop()
        await asyncio.wait([task])


async def enrolled(server: ScriptedServer, *services: str) -> Peer:
    peer = await server.work()
    for _ in services:
        join = await peer.read("join")
        assert join["service"] in services
        await peer.answer(join, "joined", service=join["service"])
    return peer


async def test_registers_joins_checks_and_stops(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "coordinator.client")
    service_work = ServiceWork("dm_check", check, {"answer": "NON_DM"})
    daemon = Daemon(new_client(), [service_work], screen_name="Ada", enrolment_token="t", concurrency=2)
    async with running(daemon) as task:
        peer = await server.work(registered=False)
        register = await peer.read("register")
        assert (register["screen_name"], register["enrolment_token"]) == ("Ada", "t")
        await peer.answer(register, "registered", client_id="ada", services=[])
        join = await peer.read("join")
        assert join["profile"] == {"answer": "NON_DM"}
        await peer.answer(join, "joined", service="dm_check")

        ask = await peer.read("ask")
        assert (ask["count"], ask.get("wait", True)) == (1, True)
        await peer.asked(ask)
        await peer.bucket("b", 1, 1, 2, 3)
        seen: list[Record] = []

        while not seen:  # the next ask may come before the submit
            message = await peer.read("ask", "submit")
            if message["type"] == "ask":
                await peer.asked(message)
            else:
                seen.append(message)
                await peer.stored(message)

        assert seen[0]["final"]
        assert sorted(one["item"] for one in seen[0]["results"]) == [1, 2, 3]
        assert {one["dm"] for one in seen[0]["results"]} == {"NON_DM"}
        peer.carry_on()
        daemon.stop()
        await task

    assert {"ask": 0} in [{one["type"]: one.get("count")} for one in peer.said]
    page = f"your page: {daemon.client.page} (it opens with a viewer's token)"
    assert [line for line in caplog.messages if line.startswith("your page")] == [page]


async def test_faulty_item_goes_back_and_the_others_go_on(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def picky(item: Record, profile: Record) -> Record:
        if item["item"] == 2:
            raise RuntimeError("no")
        return await check(item, profile)

    daemon = Daemon(new_client(), [ServiceWork("dm_check", picky)], concurrency=1)
    async with running(daemon):
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, 1, 2, 3)
        message = await peer.read_past_asks("submit")
        assert [one["item"] for one in message["results"]] == [1, 3]
        assert message["final"]
        await peer.stored(message, remaining=1)
        peer.carry_on()

    (line,) = [one for one in caplog.records if "cannot be checked" in one.getMessage()]
    assert line.getMessage() == "dm_check: item 2 (key2) cannot be checked: RuntimeError: no"
    assert line.exc_info is None  # one line, and no traceback


async def test_many_faulty_items_are_some_lines(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(item: Record, profile: Record) -> Record:
        raise CheckFailed("not for me")

    daemon = Daemon(new_client(), [ServiceWork("dm_check", failing)])
    async with running(daemon):
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, *range(1, 181))
        await peer.read_past_asks("submit", "release")
        peer.carry_on()

    lines = [line for line in caplog.messages if "cannot be checked" in line]
    assert len(lines) == LINES
    assert lines[0].endswith("cannot be checked: not for me")
    assert f"dm_check: {180 - LINES} more lines were left out" in caplog.messages


async def test_why_it_cannot_work_is_told_though_the_server_takes_nothing_back(
    server: ScriptedServer, new_client: NewClient
) -> None:
    async def misconfigured(item: Record, profile: Record) -> Record:
        raise ConfigError("The token is wrong.")

    daemon = Daemon(new_client(), [ServiceWork("dm_check", misconfigured)], concurrency=1, stop_grace=0.05)
    task = asyncio.create_task(daemon.run())
    peer = await enrolled(server, "dm_check")
    await peer.asked(await peer.read("ask"))
    with logged("left unfinished") as told:
        await peer.bucket("b", 1, 1)
        await told.wait()  # the release has had no answer until now
    peer.carry_on()
    with pytest.raises(ConfigError, match="The token is wrong"):
        await task


async def test_an_item_that_takes_too_long_goes_back(
    server: ScriptedServer, new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def hanging(item: Record, profile: Record) -> Record:
        if item["item"] == 2:
            await asyncio.Event().wait()
        return await check(item, profile)

    daemon = Daemon(new_client(), [ServiceWork("dm_check", hanging, item_timeout=0.2)], concurrency=1)
    async with running(daemon):
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, 1, 2, 3)
        message = await peer.read_past_asks("submit")
        assert [one["item"] for one in message["results"]] == [1, 3]
        await peer.stored(message, remaining=1)
        peer.carry_on()

    assert "item 2 (key2) cannot be checked: no result within 0.2 s" in caplog.text


async def test_upstream_limit_is_reported_and_waited_out(server: ScriptedServer, new_client: NewClient) -> None:
    limits = [1.0]

    async def limited(item: Record, profile: Record) -> Record:
        if limits:
            raise UpstreamLimited(limits.pop())
        return await check(item, profile)

    loop = asyncio.get_running_loop()
    daemon = Daemon(new_client(), [ServiceWork("dm_check", limited)], concurrency=1)
    async with running(daemon):
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        began = loop.time()
        await peer.bucket("b", 1, 1)
        message = await peer.read_past_asks("report")

        assert (message["kind"], message["retry_after"]) == ("upstream_limited", 1.0)
        await peer.answer(message, "reported", service="dm_check", retry_after=1.0)
        submit = await peer.read("ask", "submit")  # the bucket is kept
        assert loop.time() - began >= 1  # and nothing is asked for meanwhile
        while submit["type"] == "ask":
            await peer.asked(submit)
            submit = await peer.read("ask", "submit")

        assert submit["results"] == [{"dm": "DM", "item": 1}]
        await peer.stored(submit)
        peer.carry_on()


async def test_services_take_turns(server: ScriptedServer, new_client: NewClient) -> None:
    order: list[str] = []
    both, all_done = asyncio.Event(), asyncio.Event()

    def noting(service: str) -> Any:
        async def note(item: Record, profile: Record) -> Record:
            await both.wait()
            order.append(service)
            if len(order) == 6:
                all_done.set()
            return {"dm": "DM"}

        return note

    daemon = Daemon(new_client(), [ServiceWork("a", noting("a")), ServiceWork("b", noting("b"))], concurrency=1)
    async with running(daemon):
        peer = await server.work()
        for _ in range(4):  # a join and an ask of each
            message = await peer.read("join", "ask")
            service = message["service"]
            if message["type"] == "join":
                await peer.answer(message, "joined", service=service)
            else:
                await peer.asked(message)
                await peer.bucket(f"of {service}", 1, 1, 2, 3, service=service)

        # Its answer comes after the buckets: when it is here, they are.
        async with asyncio.TaskGroup() as group:
            group.create_task(_answer_services(peer))
            await daemon.client.services()

        both.set()
        peer.carry_on()
        await all_done.wait()

    assert order[1:5] in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


async def _answer_services(peer: Peer) -> None:
    await peer.answer(await peer.read("services"), "services", services=[])


async def test_stop_lets_what_is_in_check_finish(server: ScriptedServer, new_client: NewClient) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(item: Record, profile: Record) -> Record:
        begun.set()
        await go.wait()
        return {"dm": "DM"}

    daemon = Daemon(new_client(), [ServiceWork("dm_check", slow)], concurrency=1)
    async with running(daemon) as task:
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, 1, 2)
        await begun.wait()
        peer.carry_on()
        daemon.stop()
        go.set()
        await task

    (submit,) = [one for one in peer.said if one["type"] == "submit"]
    assert submit["results"] == [{"dm": "DM", "item": 1}]
    assert submit["final"]


async def test_final_close_ends_the_daemon(server: ScriptedServer, new_client: NewClient) -> None:
    async with running(Daemon(new_client(), [ServiceWork("dm_check", check)])) as task:
        peer = await enrolled(server, "dm_check")
        await peer.close(4502, "gone")
        with pytest.raises(SessionEnded, match="deactivated"):
            await task


async def test_dying_program_releases_and_ends(server: ScriptedServer, new_client: NewClient) -> None:
    async with CheckerProgram(f"{sys.executable} -c 'input()'", Backoff(0.01, 0.01)) as program:
        daemon = Daemon(new_client(), [ServiceWork("dm_check", program.checker("dm_check"))], concurrency=2)
        async with running(daemon) as task:
            peer = await enrolled(server, "dm_check")
            await peer.asked(await peer.read("ask"))
            await peer.bucket("b", 1, 1, 2, 3, 4, 5)
            peer.carry_on()
            with pytest.raises(ProgramFailed, match="died over 3 different items, each alone"):
                await task
    assert "release" in [one["type"] for one in peer.said]


@asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`coordinator work` in a process of its own, as it is when its program starts it."""
    code = "import typer; from coordinator.cli.work import work\napp = typer.Typer(); app.command('work')(work); app()"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *arguments, stderr=asyncio.subprocess.PIPE)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


async def test_command_works_and_stops_on_a_signal(server: ScriptedServer, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    got = json.loads(line)\n"
        "    print(json.dumps({'item': got['item'], 'dm': got['profile']['a']}), flush=True)\n"
    )

    async with command(
        *("--server", server.url.replace("ws:", "http:"), "--service", "dm_check", "--client-id", "ada"),
        *("--exec", f"{sys.executable} {program}", "--profile", '{"a": "DM"}', "--data", str(tmp_path)),
    ) as child:
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        await peer.bucket("b", 1, 1)
        message = await peer.read_past_asks("submit")

        assert message["results"] == [{"item": 1, "dm": "DM"}]
        await peer.stored(message)
        peer.carry_on()
        child.send_signal(signal.SIGTERM)
        assert await within(child.wait(), 20) == 0


async def test_nothing_of_a_stranger_reaches_the_terminal_as_it_came(server: ScriptedServer, tmp_path: Path) -> None:
    hostile = "\x1b[2Jkey\u202e\u200f\n2026 forged"
    async with command(
        *("--server", server.url, "--service", "dm_check", "--checker", "tests.client.test_daemon:echo_key"),
        *("--data", str(tmp_path), "--log-level", "debug"),
    ) as child:
        peer = await enrolled(server, "dm_check")
        await peer.asked(await peer.read("ask"))
        item = {"item": 1, "key": hostile}
        times = {"attempt": 1, "dead_after": 7200, "release_after": 900}
        await peer.say("bucket", service="dm_check", bucket_id="b", claim=1, items=[item], **times)
        await peer.say("waiting", service="dm_check", text=hostile)
        await peer.read_past_asks("submit")

        await peer.close(4502, hostile)
        _, said = await within(child.communicate(), 20)
    lines = said.decode().splitlines()
    assert sum("\\x1b[2Jkey\\u202e\\u200f" in line for line in lines) >= 3  # the item, the push, and the close
    assert not [line for line in lines if "\x1b" in line or "\u202e" in line or "\u200f" in line]
    assert not [line for line in lines if line.startswith("2026 forged")]


async def test_command_ends_with_one_sentence(server: ScriptedServer, tmp_path: Path) -> None:
    async with command(
        *("--server", server.url, "--service", "dm_check", "--checker", "tests.client.test_daemon:check"),
        *("--data", str(tmp_path), "--log-level", "error"),
    ) as child:
        peer = await server.peer()
        await peer.close(4500, "secret")
        _, said = await within(child.communicate(), 20)
        assert child.returncode == 1
        assert said.decode().count("\n") == 1
        assert "secret" in said.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--service", "s"],
        ["--service", "s", "--checker", "nothing"],
        ["--service", "s", "--exec", "x", "--checker", "coordinator.client.x_api:dm_check"],
        ["--service", "s", "--exec", "x", "--profile", "[]"],
        ["--service", "s", "--exec", "x", "--server", "ftp://x"],
        ["--service", "s", "--exec", "x", "--client-id", "a b"],
        ["--service", "s", "--exec", "x", "--concurrency", "0"],
        [
            "--service",
            "s",
            "--checker",
            "coordinator.client.x_api:dm_check",
            "--option",
            "token=env:NOT_THERE",
        ],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    app = typer.Typer()
    app.command("work")(work)
    assert CliRunner().invoke(app, [*arguments, "--data", str(tmp_path)]).exit_code == 2
