"""Plain HTTP on both ports: the methods, and what probes are told of a database that can only be read."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from urllib.parse import urlsplit

import asyncpg
import pytest

from coordinator.store import pool
from tests.conftest import StartServer
from tests.flow.outage import Outage
from tests.harness import Server
from tests.serve.tools import eventually, execute

MAIN = ("/", "/healthz", "/readyz", "/v1/asyncapi.json", "/v1/stats", "/nothing")
OPERATIONS = ("/metrics", "/healthz", "/readyz", "/nothing")
ALLOWED = "GET, HEAD, OPTIONS"

Answer = tuple[int, dict[str, str], bytes]


def ask(port: int | None, method: str, path: str, body: str | None = None) -> Answer:
    assert port is not None
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def raw(port: int | None, request: bytes) -> bytes:
    """All that a node sends until it ends the connection."""
    assert port is not None
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request)
        return connection.makefile("rb").read()


def places(server: Server) -> list[tuple[int | None, str]]:
    return [(server.node.port, path) for path in MAIN] + [(server.node.ops_port, path) for path in OPERATIONS]


async def test_head_is_get_without_a_body(server: Server) -> None:
    for port, path in places(server):
        status, headers, _ = await asyncio.to_thread(ask, port, "GET", path)
        said = await asyncio.to_thread(raw, port, f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = said.partition(b"\r\n\r\n")
        assert body == b"", path
        assert int(head.split()[1]) == status, path
        assert {line.partition(b":")[0] for line in head.split(b"\r\n")[1:]} == {name.encode() for name in headers}
        if path != "/metrics":
            assert f"Content-Length: {headers['Content-Length']}".encode() in head


async def test_options_names_the_methods(server: Server) -> None:
    for port, path in places(server):
        status, headers, body = await asyncio.to_thread(ask, port, "OPTIONS", path)
        assert (status, headers["Allow"], body) == (204, ALLOWED, b""), path


@pytest.mark.parametrize(
    ("method", "body"),
    [("POST", None), ("POST", "a body"), ("PUT", ""), ("PATCH", "x"), ("DELETE", None), ("TRACE", None)],
)
async def test_other_methods_are_refused_with_those_that_do(server: Server, method: str, body: str | None) -> None:
    for port, path in ((server.node.port, "/"), (server.node.ops_port, "/metrics")):
        status, headers, text = await asyncio.to_thread(ask, port, method, path, body)
        assert (status, headers["Allow"]) == (405, ALLOWED)
        assert ALLOWED.encode() in text


async def test_a_large_body_does_not_hide_the_answer(server: Server) -> None:
    status, _, _ = await asyncio.to_thread(ask, server.node.port, "POST", "/", "x" * 1_000_000)
    assert status == 405


async def test_a_node_whose_database_can_only_be_read_is_not_ready(
    start_server: StartServer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for: it need not show by a statement that has failed lately."""
    monkeypatch.setattr(pool, "STORES_NOTHING_FOR", 0.0)
    server = await start_server(node_lease=60.0)
    name = urlsplit(dsn).path.removeprefix("/")
    try:
        await execute(server.database, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await Outage(dsn).strike()  # as when a standby answers from now on

        async def told() -> bool:
            status, _, body = await asyncio.to_thread(ask, server.node.port, "GET", "/readyz")
            reasons = ["The database stores nothing: it is read-only."]
            return status == 503 and json.loads(body) == {"ready": False, "reasons": reasons, "key_form": "handle"}

        await eventually(told, "the node is not ready")
    finally:
        db = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
        await db.execute(f"ALTER DATABASE {name} RESET ALL")
        await db.close()
        await Outage(dsn).strike()
