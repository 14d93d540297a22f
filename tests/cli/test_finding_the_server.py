"""Commands find their server: by option, environment, the file in its data folder, or at the usual port."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from coordinator.address_file import address_file
from coordinator.cli.access import DEFAULT_SERVER, find_server
from coordinator.cli.admin_client import admin_connection
from coordinator.config import Settings
from coordinator.wire.admin.services import ServiceList
from tests.cli.conftest import Run
from tests.cli.scripted import TOKEN, Scripted, scripted
from tests.client.proxy import HttpProxy
from tests.conftest import StartServer


def test_the_first_of_option_environment_file_and_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_server(None, tmp_path, None).address == DEFAULT_SERVER
    (tmp_path / "address").write_text("ws://127.0.0.1:7001\n")
    assert find_server(None, tmp_path, None).address == "ws://127.0.0.1:7001"
    monkeypatch.setenv("COORDINATOR_DATA", str(tmp_path))
    assert find_server(None, None, None).address == "ws://127.0.0.1:7001"
    monkeypatch.setenv("COORDINATOR_SERVER", "ws://127.0.0.1:7002")
    assert find_server(None, tmp_path, None).address == "ws://127.0.0.1:7002"
    assert find_server("ws://127.0.0.1:7003", tmp_path, None).address == "ws://127.0.0.1:7003"


async def test_a_node_tells_its_address_as_long_as_it_runs(start_server: StartServer, tmp_path: Path, run: Run) -> None:
    """Also with a database of its own, and where the folder was not there."""
    folder = tmp_path / "new" / "data"
    server = await start_server(data=folder, port=0)
    assert (folder / "address").read_text() == f"ws://127.0.0.1:{server.node.port}\n"

    words = ("service", "list", "--json", "--data", str(folder), "--token", await server.token())
    done = await asyncio.to_thread(run, *words)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 3), done.output

    await server.stack.aclose()
    assert not (folder / "address").exists()


@pytest.mark.parametrize(
    ("host", "tls", "written"),
    [
        ("127.0.0.1", False, "ws://127.0.0.1:7000"),
        ("0.0.0.0", True, "wss://127.0.0.1:7000"),
        ("::", False, "ws://[::1]:7000"),
        ("::1", True, "wss://[::1]:7000"),
        ("work.example", True, "wss://work.example:7000"),
    ],
)
def test_the_address_is_one_that_programs_here_can_use(tmp_path: Path, host: str, tls: bool, written: str) -> None:
    cert = tmp_path / "cert"
    cert.touch()
    files = {"tls_cert": cert, "tls_key": cert} if tls else {}
    settings = Settings(host=host, data=tmp_path, plaintext=not tls, **files)
    with address_file(settings, 7000):
        assert settings.address_file.read_text() == f"{written}\n"
        assert [file.name for file in tmp_path.iterdir() if file != cert] == ["address"]


def test_of_two_servers_the_first_to_end_leaves_the_address_of_the_other(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    first, second = address_file(settings, 7001), address_file(settings, 7002)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert settings.address_file.read_text() == "ws://127.0.0.1:7002\n"
    second.__exit__(None, None, None)
    assert not settings.address_file.exists()


def test_a_server_works_where_it_cannot_write_its_address(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with address_file(Settings(data=tmp_path / "file" / "data"), 7000):
        pass


def test_a_private_authority(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    with scripted(tls) as server:
        server.answers["service.list"] = {"rows": [], "next": None}
        words = ("service", "list", "--server", server.url.replace("ws:", "wss:"), "--token", TOKEN)
        strange = run(*words)
        assert strange.exit_code == 3
        assert "certificate of 127.0.0.1" in strange.stderr
        assert run(*words, "--ca", str(file)).exit_code == 0
        monkeypatch.setenv("COORDINATOR_CA", str(file))
        assert run(*words).exit_code == 0

        (tmp_path / "empty").touch()
        wrong = run(*words, "--ca", str(tmp_path / "empty"))
        assert (wrong.exit_code, wrong.stderr.startswith("coordinator: ca: ")) == (2, True)


async def test_commands_go_by_the_proxy_of_the_daemon(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server.answers["service.list"] = {"rows": [], "next": None}
    async with HttpProxy(server.port) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        async with admin_connection("ws://work.example:80", TOKEN) as client:
            assert (await client.request(ServiceList()))["rows"] == []
    assert proxy.asked == ["work.example:80"]
