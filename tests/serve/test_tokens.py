"""A session that was opened with a token ends with it, on every node."""

from __future__ import annotations

import pytest

from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Peer, Server
from tests.serve.tools import execute

AT_MOST = 5.0
"""Seconds within which such a session is closed."""


async def opened(server: Server, channel: str, token: str) -> Peer:
    peer = await Peer.open(f"{server.url}/v1/{channel}", server.stack)
    await peer.ok("hello", protocol=1, token=token)
    return peer


@pytest.mark.parametrize(("channel", "role"), [("stats", "viewer"), ("admin", "operator")])
async def test_a_session_ends_when_its_token_expires(
    start_server: StartServer, admin: Admin, channel: str, role: str
) -> None:
    there = await start_server(node_name="there")
    token = await admin.ok("token.issue", role=role, label="short", expires_in=2)
    peer = await opened(there, channel, token["token"])
    lasting = await opened(there, channel, (await admin.ok("token.issue", role=role, label="lasting"))["token"])
    assert await peer.close_code(2 + AT_MOST) == 4502
    assert await lasting.refused("hello", protocol=1, token="again") == "out_of_order"


async def test_a_session_ends_when_its_token_is_revoked_though_the_signal_was_lost(server: Server) -> None:
    peer = await opened(server, "stats", await server.token("viewer"))
    await execute(server.database, "UPDATE token SET revoked_at = now() WHERE role = 'viewer'")
    assert await peer.close_code(AT_MOST) == 4502


async def test_a_session_without_a_token_goes_on(server: Server, admin: Admin) -> None:
    viewer = await server.viewer()
    await admin.ok("token.revoke", token_id=(await admin.ok("token.issue", role="viewer", label="other"))["token_id"])
    with pytest.raises(TimeoutError):
        await within(viewer.close_code(), 3)
