"""A server whose certificate is of a private authority: `coordinator work --ca`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
import trustme

from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Server
from tests.serve.tools import eventually

WORK = ["work", "--service", "dm_check", "--profile", '{"source": "me"}', "--exec", "/bin/cat"]


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    return made


@pytest.fixture
async def node(start_server: StartServer, authority: trustme.CA, tmp_path: Path) -> Server:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    return await start_server(tls_cert=tmp_path / "node.pem", tls_key=tmp_path / "node.pem")


async def start(node: Server, data: Path, *more: str, **environment: str) -> asyncio.subprocess.Process:
    words = [*WORK, "--server", f"wss://127.0.0.1:{node.node.port}", "--data", str(data / "client"), *more]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "coordinator", *words),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env={**os.environ, **environment},
    )  # fmt: skip


async def check(node: Server, data: Path, *more: str, **environment: str) -> tuple[int, str]:
    child = await start(node, data, "--check", *more, **environment)
    said, _ = await within(child.communicate(), 60)
    return child.returncode or 0, said.decode()


async def test_the_check_knows_the_authority_by_option_and_by_environment(node: Server, tmp_path: Path) -> None:
    file = str(tmp_path / "ca.pem")
    code, said = await check(node, tmp_path)
    assert code == 1
    assert "the certificate of 127.0.0.1" in said
    assert "if its authority is a private one, give that certificate with --ca" in said

    code, said = await check(node, tmp_path, "--ca", file)
    assert (code, f"/v1/client, its certificate by {file}" in said) == (0, True), said
    assert (await check(node, tmp_path, COORDINATOR_CA=file))[0] == 0

    code, said = await check(node, tmp_path, "--ca", str(tmp_path / "none.pem"))
    assert code == 1
    assert "WRONG  address: ca: " in said
    other = trustme.CA()
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    assert (await check(node, tmp_path, "--ca", str(tmp_path / "other.pem")))[0] == 1


async def test_a_daemon_registers_over_tls(node: Server, tmp_path: Path) -> None:
    daemon = await start(node, tmp_path, "--ca", str(tmp_path / "ca.pem"), "--client-id", "ada")
    try:

        async def registered() -> bool:
            async with node.database.connection() as db:
                return bool(await db.fetchval("SELECT count(*) FROM client WHERE client_id = 'ada'"))

        await eventually(registered, "the daemon does not register")
    finally:
        daemon.terminate()
        await within(daemon.communicate(), 30)
    assert daemon.returncode == 0
