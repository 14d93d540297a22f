"""The log: one event a line whatever peers say, at the level that was set, and never a secret in it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from typing import Any

import pytest

from coordinator import credentials
from coordinator.observe import logs
from coordinator.store import tokens
from coordinator.store.pool import Database
from tests.harness import Admin, Message, Peer, Volunteer

FORGED = "2026-01-01T00:00:00Z [error    ] forged"
HOSTILE = f"agent\n{FORGED}\r\x1b[2J\x9b2J\x00\u2028\u202e\u200bend"
UNSEEN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]")
EVENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z \[\w+\s*\] ")
STYLES = ["json", "console"]


def logged(style: str, level: str, code: str) -> list[str]:
    """The lines that a program logs."""
    program = f"""
        import logging, warnings
        import structlog
        from coordinator.observe import logs
        logs.configure({style!r}, {level!r})
        log = structlog.get_logger()
        HOSTILE = {HOSTILE!r}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program) + textwrap.dedent(code)], capture_output=True, check=True
    )
    assert done.stdout == b""
    return done.stderr.decode().removesuffix("\n").split("\n")


@pytest.mark.parametrize("style", STYLES)
def test_what_peers_say_is_one_harmless_line(style: str) -> None:
    code = """
        log.info("hello", agent=HOSTILE, odd=[HOSTILE], words={"a": HOSTILE})
        log.info(HOSTILE)
        log.info("half", half="\\ud800")
    """
    *lines, half = logged(style, "info", code)
    assert len(lines) == 2
    assert "ud800" in half
    for line in lines:
        assert not UNSEEN.search(line), line
        assert "forged" in line
    if style == "json":
        assert json.loads(lines[0])["agent"] == HOSTILE
    else:
        assert all(EVENT.match(line) for line in lines)


@pytest.mark.parametrize("style", STYLES)
def test_an_exception_cannot_pass_for_an_event(style: str) -> None:
    code = """
        def fails(secret):
            raise ValueError(HOSTILE)
        try:
            fails("a-secret-of-this-frame")
        except ValueError:
            log.exception("step failed", client="c")
            logging.getLogger("library").exception("as a library does")
    """
    lines = logged(style, "info", code)
    text = "\n".join(lines)
    assert "a-secret-of-this-frame" not in text.replace('fails("a-secret-of-this-frame")', "")
    assert not UNSEEN.search(text)
    if style == "json":
        first, second = map(json.loads, lines)
        assert (first["event"], first["client"], first["level"]) == ("step failed", "c", "error")
        assert (second["event"], second["logger"]) == ("as a library does", "library")
        assert all("ValueError: agent" in one["exception"] for one in (first, second))
    else:
        events = [line for line in lines if EVENT.match(line)]
        assert len(events) == 2
        assert all(line in events or line.startswith("    | ") for line in lines)


@pytest.mark.parametrize("style", STYLES)
def test_libraries_and_warnings_go_the_same_way(style: str) -> None:
    code = """
        logging.getLogger("websockets.server").debug("a frame, secrets and all")
        logging.getLogger("websockets.server").warning("odd: %s", HOSTILE)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        warnings.warn("careful", RuntimeWarning, stacklevel=1)
    """
    lines = logged(style, "debug", code)
    assert not any("a frame" in line for line in lines)
    assert not UNSEEN.search("\n".join(lines))
    assert "odd: agent" in lines[0]
    assert any("careful" in line for line in lines)
    if style == "json":
        assert all(json.loads(line)["level"] == "warning" for line in lines)


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_is_that_of_the_setting(level: str, count: int) -> None:
    code = "log.debug('d')\nlog.info('i')\nlog.warning('w')\nlog.error('e')"
    lines = logged("json", level, code)
    assert [json.loads(line)["event"] for line in lines] == ["d", "i", "w", "e"][-count:]


# A whole run


class Run:
    """A server in a process of its own, at debug level, and all that must not be in its log."""

    def __init__(self, database: Database, stack: AsyncExitStack) -> None:
        self.database = database
        self.stack = stack
        self.lines: list[str] = []
        self.secrets: list[str] = []
        self.port = 0

    async def open(self, style: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator", "serve", "--database", self.database.dsn, "--port", "0"),
            *("--ops-port", "0", "--log-level", "debug", "--log-format", style, "--registration", "token"),
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        self.reader = asyncio.create_task(self._read())
        async with asyncio.timeout(30):
            while not self.port:
                await asyncio.sleep(0.05)
                for line in self.lines:
                    found = re.search(r'\bport"?[=:](\d+)', line) if "serving" in line else None
                    self.port = int(found[1]) if found else 0

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().removesuffix("\n"))

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(30):
            assert await self.process.wait() == 0
            await self.reader

    def secret(self, name: str) -> str:
        self.secrets.append(f"secret-of-{name}-" + "x" * 32)
        return self.secrets[-1]

    async def token(self, role: str) -> str:
        made = credentials.make_token()
        async with self.database.connection() as db:
            await tokens.issue(db, made.token_id, made.hash, role, role, None, None)
        self.secrets.append(made.token)
        return made.token

    async def client(self) -> Volunteer:
        return await Volunteer.open(f"ws://127.0.0.1:{self.port}/v1/client", self.stack)

    async def say_hello(self, secret: str, **more: Any) -> tuple[Volunteer, Message]:
        peer = await self.client()
        return peer, await peer.ask_for("hello", protocol=1, client_id="ada", secret=secret, **more)

    async def play(self) -> None:
        """Everything that has to do with secrets and tokens, well and wrongly."""
        peer, welcome = await self.say_hello(self.secret("ada"), agent=HOSTILE.replace("\0", ""))
        assert welcome["type"] == "welcome"
        choice = {"service": "dm_check", "profile": {"source": "ada"}}
        wrong = await peer.ask_for("register", screen_name="ada", enrolment_token=self.secret("wrong-token"))
        assert wrong["code"] == "unauthorized"
        enrolment = await self.token("enrolment")
        await peer.ok("register", screen_name="ada", enrolment_token=enrolment, services=[choice])
        _, refused = await self.say_hello(self.secret("somebody-else"))
        assert refused["code"] == "unauthorized"
        _, refused = await self.say_hello(self.secret("hello-with-a-fault"), holds="all")
        assert refused["code"] == "bad_message"
        await (await self.client()).connection.send('{"type": "hello", "secret": "' + self.secret("torn-frame"))
        await (await self.client()).connection.send(self.secret("first-word"))

        admin = await Admin.open(f"ws://127.0.0.1:{self.port}/v1/admin", self.stack)
        await admin.ok("hello", protocol=1, token=await self.token("admin"))
        issued = await admin.ok("token.issue", role="viewer", label="watching")
        self.secrets.append(issued["token"])
        await admin.add(1)
        await peer.bucket()
        bucket = "00000000-0000-4000-8000-000000000000\n" + FORGED[:20]
        assert (await peer.ask_for("release", bucket_id=bucket, claim=1))["code"] == "unknown_bucket"
        for channel, token in (("admin", self.secret("no-admin")), ("admin", issued["token"]), ("stats", "")):
            other = await Peer.open(f"ws://127.0.0.1:{self.port}/v1/{channel}", self.stack)
            await other.ask_for("hello", protocol=1, token=token or self.secret("no-viewer"))
        query = f"?token={self.secret('in-a-query')}"
        headers = {"Authorization": f"Bearer {self.secret('in-a-header')}"}
        await Peer.open(f"ws://127.0.0.1:{self.port}/v1/admin{query}", self.stack, additional_headers=headers)
        await admin.ok("client.forget_secret", client_id="ada")
        assert await peer.refused("ask", service="dm_check", count=1) == "not_registered"


@pytest.mark.parametrize("style", STYLES)
async def test_a_whole_run_tells_no_secret_and_what_it_is_about(database: Database, style: str) -> None:
    async with AsyncExitStack() as stack:
        run = Run(database, stack)
        await run.open(style)
        stack.push_async_callback(run.close)
        await run.play()
    text = "\n".join(run.lines)
    assert len(run.secrets) >= 12
    assert [one for one in run.secrets if one in text] == []
    assert not UNSEEN.search(text)
    assert all("forged" not in line or "agent" in line for line in run.lines)
    if style == "console":
        assert all(EVENT.match(line) for line in run.lines), run.lines
        return
    events = [json.loads(line) for line in run.lines]
    began = next(one for one in events if one["event"] == "session began" and one["registered"] is False)
    assert (began["client"], began["address"]) == ("ada", "127.0.0.1")
    assert re.fullmatch(r"[0-9a-f-]{36}", began["session"])
    ended = [one for one in events if one["event"] == "session ended while holding" or one["event"] == "session ended"]
    assert {one["client"] for one in ended} == {"ada"}
    refused = {(one["request"], one["code"]) for one in events if one["event"].endswith("refused")}
    assert {("hello", "unauthorized"), ("register", "unauthorized"), ("release", "unknown_bucket")} <= refused


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_entries_of_one_kind_are_limited_and_counted() -> None:
    clock = Clock()
    limiter = logs.EntryLimiter(clock)
    admitted = [limiter.admit("refused") for _ in range(3 * logs.MAX_ENTRIES_A_SECOND)]
    assert admitted == [0] * logs.MAX_ENTRIES_A_SECOND + [None] * 2 * logs.MAX_ENTRIES_A_SECOND
    assert limiter.admit("another") == 0
    clock.now += 1
    assert [limiter.admit("refused"), limiter.admit("refused")] == [2 * logs.MAX_ENTRIES_A_SECOND, 0]


def test_many_kinds_take_no_more_memory() -> None:
    limiter = logs.EntryLimiter(Clock())
    admitted = [limiter.admit(f"kind {number}") for number in range(2 * logs.MAX_KINDS)]
    assert admitted.count(None) == logs.MAX_KINDS - logs.MAX_ENTRIES_A_SECOND
    assert len(limiter._counts) <= logs.MAX_KINDS + 1


def test_the_log_of_a_flood_is_short(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import logging, structlog; from coordinator.observe import logs; logs.configure('json', 'info')\n"
        "for number in range(1000):\n"
        "    structlog.get_logger().info('refused', number=number)\n"
        "    logging.getLogger('library').error('failed for %s', number)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    lines = capfd.readouterr().err.splitlines()
    assert 100 <= len(lines) <= 400
    assert not any("Traceback" in line for line in lines)
