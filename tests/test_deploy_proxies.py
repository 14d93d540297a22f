"""The proxies of `deploy/proxies/`: each file is checked by its program, and a real node is used through it."""

from __future__ import annotations

import asyncio
import http.client
import re
import shutil
import ssl
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from websockets.typing import Origin

from coordinator.client import Client
from tests.bounded import within
from tests.conftest import StartServer
from tests.e2e.test_readme import a_free_port
from tests.harness import Peer, Server, Volunteer
from tests.needed import leave_out
from tests.serve.tools import eventually

HERE = Path(__file__).parent.parent / "deploy/proxies"

SILENCE = 2.0
"""Seconds after which the proxies cut a connection here, instead of the minute in their files."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for a proxy's files, its two ports, the node's port, and the certificate for localhost."""

    folder: Path
    plain: int
    secure: int
    node: int

    def fit(self, text: str) -> str:
        """Put this place into a file of `deploy/`, instead of the ports, names and folders that stand there."""
        for was, here in (
            (r"work\.example\.org", "localhost"),
            (r"127\.0\.0\.1:8765", f"127.0.0.1:{self.node}"),
            (r"/etc/ssl/coordinator|/etc/haproxy", str(self.folder)),
            (r"(listen +|:)80\b", rf"\g<1>{self.plain}"),
            (r"(listen +|:)443\b", rf"\g<1>{self.secure}"),
            (r"\b60s", f"{SILENCE:g}s"),
        ):
            text = re.sub(was, here, text)
        return text


def nginx(place: Place) -> tuple[list[str], list[str]]:
    file, site = place.folder / "nginx.conf", place.folder / "site.conf"
    site.write_text(place.fit((HERE / "nginx.conf").read_text()))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {place.folder}/{kind};" for kind in kinds)
    file.write_text(
        f"daemon off; pid {place.folder}/pid; error_log stderr; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; {temporary} include {site}; }}"
    )
    words = ["nginx", "-e", "stderr", "-p", str(place.folder), "-c", str(file)]
    return [*words, "-t"], words


def haproxy(place: Place) -> tuple[list[str], list[str]]:
    file = place.folder / "haproxy.cfg"
    file.write_text(place.fit((HERE / "haproxy.cfg").read_text()))
    both = (place.folder / "chain.pem").read_text() + (place.folder / "key.pem").read_text()
    (place.folder / "coordinator.pem").write_text(both)
    return ["haproxy", "-c", "-f", str(file)], ["haproxy", "-db", "-f", str(file)]


def caddy(place: Place) -> tuple[list[str], list[str]]:
    file = place.folder / "Caddyfile"
    own = f"http_port {place.plain}\n https_port {place.secure}\n storage file_system {place.folder}"
    ports = f"{{\n admin off\n {own}\n}}\n"
    file.write_text(ports + place.fit((HERE / "Caddyfile").read_text()))
    words = ["--config", str(file), "--adapter", "caddyfile"]
    return ["caddy", "validate", *words], ["caddy", "run", *words]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority of our own, which programs trust by SSL_CERT_FILE, and its certificate for localhost."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate = made.issue_cert("localhost")
    (tmp_path / "chain.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return made


@asynccontextmanager
async def running(check: list[str], run: list[str], place: Place) -> AsyncIterator[None]:
    """Check a proxy's files, and run it until the end."""
    program = shutil.which(check[0], path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        leave_out(f"the tests of deploy/proxies need {check[0]} (Debian's package of that name)")
    checked = await asyncio.create_subprocess_exec(program, *check[1:], stdout=PIPE, stderr=STDOUT)
    said, _ = await checked.communicate()
    assert checked.returncode == 0, said.decode()

    process = await asyncio.create_subprocess_exec(program, *run[1:], stdout=DEVNULL, stderr=DEVNULL)

    async def listens() -> bool:
        assert process.returncode is None, "the proxy has ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", place.secure)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await eventually(listens, "the proxy listens")
        yield
    finally:
        process.terminate()
        await process.wait()


def get(place: Place, path: str, context: ssl.SSLContext | None) -> tuple[int, str, str]:
    """Status, `Location` and text; in plain HTTP without a context."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("localhost", place.plain, timeout=5)
    else:
        connection = http.client.HTTPSConnection("localhost", place.secure, timeout=5, context=context)
    connection.request("GET", path)
    answer = connection.getresponse()
    found = answer.status, answer.getheader("Location") or "", answer.read().decode()
    connection.close()
    return found


async def the_pages_load(place: Place, trusting: ssl.SSLContext, path: str) -> None:
    status, _, page = await asyncio.to_thread(get, place, path, trusting)
    assert status == 200
    assets = re.findall(r'(?:src|href)="(assets/[^"]+)"', page)
    assert len(assets) == 3
    for asset in assets:
        assert (await asyncio.to_thread(get, place, f"{path}{asset}", trusting))[0] == 200, asset


async def a_session_lives_and_is_known_by_its_address(place: Place, server: Server, trusting: ssl.SSLContext) -> None:
    """From 127.0.0.2, that the proxy has to note; an address that the client makes up is not believed."""
    volunteer = await Volunteer.open(
        f"wss://localhost:{place.secure}/work/v1/client", server.stack, ssl=trusting, host="127.0.0.1",
        local_addr=("127.0.0.2", 0), proxy=None,
        additional_headers={"X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.1"},
    )  # fmt: skip
    await volunteer.hello("volunteer")
    assert {session.address for session in server.node.parts.sessions.clients} == {"127.0.0.2"}
    await asyncio.sleep(1.25 * SILENCE)  # the node's pings are all that the proxy sees meanwhile
    await volunteer.ok("services")


@pytest.mark.long
@pytest.mark.parametrize("proxy", [nginx, haproxy, caddy], ids=lambda proxy: proxy.__name__)
async def test_a_node_is_used_through_a_proxy(
    start_server: StartServer,
    authority: trustme.CA,
    tmp_path: Path,
    proxy: Callable[[Place], tuple[list[str], list[str]]],
) -> None:
    trusting = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    server = await start_server(
        trusted_proxies="127.0.0.1", registration="open", viewers="open", ping_interval=0.2, ping_timeout=5.0
    )
    place = Place(tmp_path, a_free_port(), a_free_port(), server.node.port)
    async with running(*proxy(place), place):
        lives = asyncio.create_task(a_session_lives_and_is_known_by_its_address(place, server, trusting))

        for path in ("/", "/work/"):
            await the_pages_load(place, trusting, path)
            host = f"localhost:{place.secure}"
            viewer = await Peer.open(
                f"wss://{host}{path}v1/stats", server.stack, ssl=trusting, origin=Origin(f"https://{host}"), proxy=None
            )
            await viewer.ok("hello", protocol=1)
        status, to, _ = await asyncio.to_thread(get, place, "/work", trusting)
        assert (status, to.removeprefix(f"https://{host}")) == (308, "/work/")
        status, to, _ = await asyncio.to_thread(get, place, "/work/", None)
        assert status in (301, 308)
        assert to.startswith("https://localhost")

        async with Client(f"https://{host}/work", data=tmp_path / "daemon") as client:
            await within(client.welcome(), 10)
        await lives
