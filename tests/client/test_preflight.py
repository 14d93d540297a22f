"""`coordinator work --check` says in plain words what is wrong, before anything is asked for."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from coordinator.client.checkers import close_checker
from coordinator.client.preflight import look_at_checker
from coordinator.client.profile_check import fault_of_profile
from coordinator.client.x_api import dm_check
from coordinator.standin import StandIn
from coordinator.standin_troubles import ApiFault
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Server

from .proxy import HttpProxy
from .scripted import ScriptedServer

API = "coordinator.client.x_api:dm_check"


class Check:
    """Runs the command; `environment` is what it has besides ours, without any proxy."""

    def __init__(self, data: Path, api: str) -> None:
        self.data = data
        self.environment: dict[str, str] = {}
        self.checker = ["--checker", API, "--option", f"base_url={api}", "--option", "token=t"]
        self.profile = ["--profile", '{"source": "me"}']
        self.service = "dm_check"
        self.mode = ["--check"]

    async def __call__(self, server: str, *more: str) -> tuple[int, list[str]]:
        words = ["work", *self.mode, "--server", server, "--service", self.service, "--data", str(self.data), *more]
        inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator", *words, *self.checker, *self.profile),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**inherited, **self.environment},
        )  # fmt: skip
        said, _ = await within(child.communicate(), 60)
        return child.returncode or 0, said.decode().splitlines()

    async def wrong(self, server: str, *more: str) -> str:
        """The only thing that is wrong."""
        code, lines = await self(server, *more)
        (line,) = [line for line in lines if line.startswith("WRONG")]
        assert code == 1
        assert "Traceback" not in "".join(lines)
        return line


@pytest.fixture
def check(tmp_path: Path, standin: StandIn) -> Check:
    return Check(tmp_path / "client", standin.url)


async def test_all_is_in_order(check: Check, node: Server) -> None:
    code, lines = await check(node.url, "--client-id", "ada")
    assert [line.partition(":")[0] for line in lines] == [
        "ok     address",
        "ok     way to the server",
        "ok     identity",
        "ok     server",
        "ok     clock, by the server",
        "ok     service dm_check",
        "ok     profile for dm_check",
        "ok     API for dm_check",
        "ok     clock, by the API",
    ]
    assert "only then it tells if it wants an --enrolment-token" in lines[3]
    assert code == 0
    async with node.database.connection() as db:  # nothing was asked for, and nobody registered
        assert await db.fetchval("SELECT count(*) FROM claim") == 0
        assert await db.fetchval("SELECT count(*) FROM client") == 0


@pytest.mark.long
async def test_the_server(check: Check, node: Server, server: ScriptedServer) -> None:
    assert "nothing listens at 127.0.0.1:9: connection refused" in await check.wrong("ws://127.0.0.1:9")
    assert "'ftp://x' is not the address of a server" in await check.wrong("ftp://x")
    assert "expected a wss:// address" in await check.wrong("ws://work.example")
    assert "is not found (DNS)" in await check.wrong("wss://no-such-host.invalid")

    server.refusals = [(404, {})]
    assert "HTTP 404: there is no coordinator at this path" in await check.wrong(server.url)
    assert "perhaps without TLS: ws://" in await check.wrong(node.url.replace("ws:", "wss:"))

    check.service = "dm_chek"
    line = await check.wrong(node.url)
    assert "no such service; it has dm_check, follower_check, following_check" in line


async def test_the_identity(check: Check, node: Server) -> None:
    await node.volunteer("ada")  # with a secret of its own
    assert "The server refused hello" in await check.wrong(node.url, "--client-id", "ada")

    check.data.mkdir(exist_ok=True)
    (check.data / "default.json").write_text("{")
    assert "is damaged" in await check.wrong(node.url)

    check.data = check.data / "default.json" / "below a file"
    assert "cannot be used" in await check.wrong(node.url)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ([], """profile for dm_check: --profile is missing: "source" is a required property."""),
        (["--profile", '{"source": 3}'], """--profile does not fit: source: 3 is not of type "string"."""),
        (["--profile", '{"source": "me", "x": 1}'], "does not fit: Additional properties are not allowed ('x'"),
    ],
)
async def test_the_profile(check: Check, node: Server, profile: list[str], words: str) -> None:
    check.profile = profile
    check.checker = ["--exec", "/bin/cat"]
    assert words in await check.wrong(node.url)


def test_a_schema_that_cannot_be_read_is_no_fault_of_the_profile() -> None:
    assert fault_of_profile({"type": 7}, {}) is None
    assert fault_of_profile({"$ref": "http://elsewhere.example/schema"}, {}) is None


async def test_the_start_says_where_an_enrolment_token_goes(check: Check, start_server: StartServer) -> None:
    node = await start_server(registration="token")
    check.mode = []
    code, lines = await check(node.url)
    assert code == 1
    assert lines[-1] == (
        "coordinator work: bad_registration: An enrolment token is needed. "
        "Ask the server's operator for one, and give it with --enrolment-token."
    )


async def test_the_checker(check: Check, node: Server, tmp_path: Path) -> None:
    check.checker = ["--checker", "no_such_module:check"]
    assert "cannot be imported" in await check.wrong(node.url)

    check.checker = ["--exec", "/bin/false"]
    code, lines = await check(node.url)
    assert code == 1
    assert lines[-2] == "WRONG  program: The program ends at once, without being asked (exit status 1)."
    assert all(line.startswith(("ok  ", "WRONG")) for line in lines)
    check.checker = ["--exec", "/bin/cat"]
    assert (await check(node.url))[0] == 0


@pytest.mark.long
async def test_the_api(check: Check, node: Server, standin: StandIn) -> None:
    standin.troubles.refusing = ApiFault.of(401, 89, "Invalid or expired token.")
    assert "API for dm_check: The token is invalid or has expired" in await check.wrong(node.url)
    standin.troubles.refusing = ApiFault.of(403, 453, "A subset.")
    assert "access level is too low" in await check.wrong(node.url)
    standin.troubles.refusing = ApiFault(401, {})
    assert "does not let this request in" in await check.wrong(node.url)

    standin.troubles.refusing = ApiFault.of(429, 88, "Rate limit exceeded.", {"retry-after": "60"})
    code, lines = await check(node.url)
    assert code == 0
    assert "accepts the token, but takes nothing for 60 s: its limit is reached" in "".join(lines)

    standin.troubles.refusing, standin.troubles.down = None, 503
    assert "does not work now: A page came instead of the API's answer. (503" in await check.wrong(node.url)
    standin.troubles.down = None
    check.profile = []
    assert "dm_check needs a profile like" in "".join((await check(node.url))[1])


async def test_how_many_requests_are_left_of_each_limit(standin: StandIn) -> None:
    standin.troubles.daily = 2
    async with AsyncExitStack() as stack:
        checker = dm_check(standin.url, "t")
        stack.push_async_callback(close_checker, checker)
        said = []
        for _ in range(3):
            api, clock = await look_at_checker("dm_check", checker, {"source": "me"})
            assert (api.ok, clock.ok) == (True, True)
            said.append(api.text)

    accepts, spent = f"{standin.url} accepts the token; ", "2 requests a day for the token's app"
    assert said == [
        f"{accepts}1 of {spent} are left (new ones in 12 h)",
        f"{accepts}none of {spent} are left (new ones in 12 h)",
        f"accepts the token, but takes nothing for 12 h: its limit of {spent} is reached",
    ]


async def test_the_proxy(check: Check, node: Server) -> None:
    check.checker[3] = "base_url=http://api.example"
    check.environment = {"HTTP_PROXY": "http://127.0.0.1:9"}
    assert "nothing listens at the proxy http://127.0.0.1:9: connection refused" in await check.wrong(node.url)
    check.environment = {"HTTP_PROXY": "gopher://proxy"}
    assert "HTTP_PROXY names no proxy that can be used" in await check.wrong(node.url)

    async with HttpProxy(1, refusal="407 Proxy Authentication Required") as proxy:
        check.environment = {"HTTP_PROXY": proxy.url}
        check.checker[3] = "base_url=https://api.example"
        check.environment = {"HTTPS_PROXY": proxy.url}
        assert "407 Proxy Authentication Required (by the proxy" in await check.wrong(node.url)


@pytest.mark.parametrize(("clock", "words"), [(3600.0, "behind that of the"), (-3600.0, "ahead of that of the")])
async def test_the_clock(check: Check, node: Server, standin: StandIn, clock: float, words: str) -> None:
    standin.troubles.clock = clock
    line = await check.wrong(node.url)
    assert words in line
    assert "s clock is 1 h" in line or "s clock is 60 min" in line
