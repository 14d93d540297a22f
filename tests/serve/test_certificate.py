"""TLS on the node's own port: a certificate that is replaced is used for new connections, without a restart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from coordinator.errors import ConfigError
from coordinator.serve import certificate
from tests.conftest import StartServer
from tests.harness import Server, Volunteer
from tests.serve.tools import eventually


class Files:
    """A certificate chain and its key, as whoever renews them writes them."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate, self.key = folder / "chain.pem", folder / "key.pem"
        self.renew()

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.certificate), "tls_key": str(self.key)}

    def renew(self, *, only_key: bool = False) -> None:
        """Replace both files, as a rename does; or the key alone, as one sees it in between."""
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        for file, parts in ((self.key, [made.private_key_pem]), (self.certificate, made.cert_chain_pems)):
            if not (only_key and file == self.certificate):
                new = file.with_suffix(".new")
                new.write_bytes(b"".join(part.bytes() for part in parts))
                new.replace(file)

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(certificate, "CERTIFICATE_LOOK_INTERVAL", 0.02)
    return Files(tmp_path)


async def shown(server: Server, files: Files) -> str:
    """The number of the certificate that a new connection is shown; its name and authority are checked."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.node.port, ssl=files.trusting())
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"])
    finally:
        writer.close()
        await writer.wait_closed()


def another_than(number: str, server: Server, files: Files) -> Callable[[], Awaitable[bool]]:
    async def it_is() -> bool:
        return await shown(server, files) != number

    return it_is


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    start_server: StartServer, files: Files
) -> None:
    server = await start_server(**files.settings)
    url = f"wss://localhost:{server.node.port}/v1/client"
    before = await Volunteer.open(url, server.stack, ssl=files.trusting())
    await before.hello("before")
    first = await shown(server, files)

    files.renew()
    await eventually(another_than(first, server, files), "the new certificate is used")
    await before.ok("services")
    behind = await Volunteer.open(url, server.stack, ssl=files.trusting())
    await behind.hello("behind")


async def test_a_pair_that_does_not_fit_is_told_once_and_the_former_stays(
    start_server: StartServer, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await start_server(**files.settings)
    first = await shown(server, files)
    said = ""

    async def told() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "the former one stays" in said

    files.renew(only_key=True)
    await eventually(told, "it is told")
    assert await shown(server, files) == first
    files.renew()
    await eventually(another_than(first, server, files), "the whole pair is used")
    await told()
    assert said.count("the former one stays") == 1


async def test_the_files_may_be_away_for_a_while(start_server: StartServer, files: Files) -> None:
    server = await start_server(**files.settings)
    first = await shown(server, files)
    files.certificate.unlink()
    assert await shown(server, files) == first
    files.renew()
    await eventually(another_than(first, server, files), "the new certificate is used")


async def test_a_node_does_not_start_with_a_pair_that_does_not_fit(start_server: StartServer, files: Files) -> None:
    files.renew(only_key=True)
    with pytest.raises(ConfigError, match=r"tls_cert, tls_key: .*KEY_VALUES_MISMATCH"):
        await start_server(**files.settings)
