"""The reasons for closing a connection, each with its code; other clients are not affected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from coordinator.serve import pinger
from coordinator.wire.frames import SUBPROTOCOL
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Message, Peer, Server, Volunteer, secret_of, submission
from tests.serve.tools import RawPeer, eventually, works_well

KIB = 1024


@dataclass
class Neighbourhood:
    """A node, and a client on it that must not be affected."""

    server: Server
    admin: Admin
    neighbour: Volunteer

    async def notices_nothing(self) -> None:
        await works_well(self.server, self.admin, self.neighbour)


async def neighbourhood(server: Server) -> Neighbourhood:
    return Neighbourhood(server, await server.admin(), await server.volunteer("neighbour"))


@pytest.fixture
async def here(server: Server) -> AsyncIterator[Neighbourhood]:
    """A neighbourhood on a node with the defaults; checked again at the end of the test."""
    made = await neighbourhood(server)
    yield made
    await made.notices_nothing()


def hello_text(client_id: str = "somebody", **more: object) -> str:
    return json.dumps({"type": "hello", "protocol": 1, "client_id": client_id, "secret": secret_of(client_id), **more})


async def raw(peer: Peer, text: str) -> Message:
    """Send text that need not be a message; the next frame answers it."""
    await peer.connection.send(text)
    return await within(peer.pushes.get(), 10)


# Hello


async def test_no_hello_in_time(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(hello_timeout=0.4))
    silent, early = await here.server.client(), await here.server.client()
    assert await early.refused("ask", service="dm_check", count=1) == "out_of_order"
    assert await early.refused("register", screen_name="early") == "out_of_order"
    assert await silent.close_code() == 4408
    assert await early.close_code() == 4408
    await here.notices_nothing()


async def test_a_first_message_that_is_no_hello_still_leaves_the_time_for_one(here: Neighbourhood) -> None:
    client = await here.server.client()
    assert await client.refused("services") == "out_of_order"
    assert (await client.hello("late"))["type"] == "welcome"


async def test_a_session_that_said_hello_stays_after_the_hello_timeout(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(hello_timeout=0.3))
    silent = await here.server.client()
    assert await silent.close_code() == 4408  # so the neighbour is older than that too
    await here.notices_nothing()


async def test_another_version(here: Neighbourhood) -> None:
    for more in ({"protocol": 2}, {"protocol": 2, "new_field": {}}, {"protocol": 0}, {"protocol": 2, "secret": 5}):
        client = await here.server.client()
        fields = {**json.loads(hello_text()), **more}
        del fields["type"]
        answer = await client.ask_for("hello", **fields)
        assert answer["code"] == "unsupported", answer
        assert await client.close_code() == 4503


async def test_a_hello_of_the_wrong_shape_does_not_close(here: Neighbourhood) -> None:
    client = await here.server.client()
    good = json.loads(hello_text())
    del good["type"]
    for field, wrong in (
        ("client_id", ""),
        ("client_id", "x" * 65),
        ("client_id", "a b"),
        ("client_id", "line\n"),
        ("client_id", "ä"),
        ("secret", "short"),
        ("secret", "x" * 257),
        ("protocol", "1"),
        ("holds", [{"bucket_id": "a"}]),
        ("agent", 5),
    ):
        answer = await client.ask_for("hello", **{**good, field: wrong})
        assert answer["code"] == "bad_message", (field, wrong, answer)
        assert answer["detail"]["path"].startswith(f"$.{field}")
    assert (await client.ask_for("hello", **good, colour="red"))["code"] == "unsupported"
    assert (await client.ask_for("hello", **good))["type"] == "welcome"


async def test_a_wrong_secret(here: Neighbourhood) -> None:
    thief = await here.server.client()
    answer = await thief.ask_for("hello", protocol=1, client_id="neighbour", secret="x" * 32)
    assert answer["code"] == "unauthorized"
    assert await thief.close_code() == 4500


# Frames


async def test_a_binary_frame(here: Neighbourhood) -> None:
    for greet in (False, True):
        client = await here.server.client()
        if greet:
            await client.hello("binary")
        await client.connection.send(hello_text().encode())
        assert await client.close_code() == 1003


async def test_invalid_utf_8(here: Neighbourhood) -> None:
    for greet in (False, True):
        client = await RawPeer.open(here.server)
        if greet:
            await client.hello("latin")
        client.frame(b'{"type": "services", "ref": "\xe9"}')
        assert await client.close_code() == 1007


async def test_frames_that_break_the_protocol(here: Neighbourhood) -> None:
    for frame in (
        {"payload": b"{}", "masked": False},
        {"payload": b"{}", "opcode": 3},
        {"payload": b"{}", "opcode": 0},
        {"payload": b"x" * 126, "opcode": 9},
    ):
        client = await RawPeer.open(here.server)
        await client.hello("breaker")
        client.frame(**frame)  # type: ignore[arg-type]  # fields of one call each
        assert await client.close_code() == 1002


async def test_a_message_in_many_frames_is_one_message(here: Neighbourhood) -> None:
    client = await RawPeer.open(here.server)
    text = hello_text("pieces").encode()
    client.frame(text[:10], final=False)
    client.frame(b"", opcode=9)  # a ping in between
    for letter in text[10:-1]:
        client.frame(bytes([letter]), opcode=0, final=False)
    client.frame(text[-1:], opcode=0)
    assert (await client.read())[0] == 10
    assert json.loads((await client.read())[1])["type"] == "welcome"


async def test_too_large_before_hello(here: Neighbourhood) -> None:
    client = await here.server.client()
    assert (await raw(client, "{}".ljust(64 * KIB)))["code"] == "bad_message"
    assert (await raw(client, hello_text("exact").ljust(64 * KIB)))["type"] == "welcome"
    client = await here.server.client()
    await client.connection.send(hello_text().ljust(64 * KIB + 1))
    assert await client.close_code() == 1009


async def test_too_large_once_registered(here: Neighbourhood) -> None:
    client = await here.server.client()
    assert (await client.hello("large"))["limits"]["max_message_bytes"] == 1024 * KIB
    await client.ok("register", screen_name="large")
    assert (await raw(client, '{"type": "services"}'.ljust(1024 * KIB)))["type"] == "services"
    await client.connection.send('{"type": "services"}'.ljust(1024 * KIB + 1))
    assert await client.close_code() == 1009


async def test_too_large_after_hello_was_refused(here: Neighbourhood) -> None:
    client = await here.server.client()
    assert await client.refused("hello", protocol=1, client_id="a b", secret="x" * 32) == "bad_message"
    await client.connection.send("{}".ljust(64 * KIB + 1))
    assert await client.close_code() == 1009


async def test_messages_that_are_none_do_not_close(here: Neighbourhood) -> None:
    client = await here.server.volunteer("confused")
    for text in (
        "",
        "{",
        "nothing",
        "null",
        "5",
        '"services"',
        "[]",
        '[{"type": "services"}]',
        "{}",
        '{"type": 5}',
        '{"type": null}',
        '{"type": "services"} {}',
        '{"type": "services", "ref": 1.5}',
        '{"type": "services", "ref": true}',
        '{"type": "services", "ref": {}}',
        json.dumps({"type": "services", "ref": "x" * 65}),
        '{"type": "services", "ref": NaN}',
        '{"type": "ask", "service": "dm_check", "count": -1}',
        '{"type": "ask", "service": "dm_check", "count": 1.5}',
        '{"type": "ask", "service": "dm_check", "count": "1"}',
        '{"type": "ask", "service": "dm_check", "count": 1, "wait": 1}',
        '{"type": "ask", "service": "dm check", "count": 1}',
        '{"type": "submit", "bucket_id": 5, "claim": 1, "results": [], "final": true}',
        '{"type": "submit", "bucket_id": "a", "claim": 1, "results": []}',
        '{"type": "report", "service": "dm_check", "kind": "tired"}',
        '{"type": "report", "service": "dm_check", "kind": "cannot_work", "retry_after": -1}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ):
        answer = await raw(client, text)
        assert (answer["type"], answer["code"]) == ("error", "bad_message"), (text[:80], answer)
        assert answer["detail"]["path"].startswith("$"), (text[:80], answer)
        assert "ref" not in answer
        assert answer["message"].endswith("."), answer
    for text in ('{"type": "service"}', '{"type": "services", "colour": 1}', '{"type": "service.list"}'):
        assert (await raw(client, text))["code"] == "unsupported"
    assert (await client.ok("services"))["type"] == "services"


async def test_refs_come_back_as_they_were(here: Neighbourhood) -> None:
    client = await here.server.client()
    await client.hello("refs")
    for ref in (0, -5, 2**53, 2**63 - 1, "", "x" * 64, "ünïcode", "0"):
        for kind in ("services", "nonsense", "ask"):
            answer = await raw(client, json.dumps({"type": kind, "ref": ref}))
            assert (answer["ref"], type(answer["ref"])) == (ref, type(ref))
    assert "ref" not in await raw(client, '{"type": "services"}')


async def test_zero_and_lone_surrogates_are_refused_anywhere(here: Neighbourhood) -> None:
    client = await here.server.client()
    await client.hello("zero")
    await client.ok("register", screen_name="zero", services=[{"service": "dm_check", "profile": {"source": "a"}}])
    await here.admin.add(1, prefix="zero")
    bucket = await client.bucket()
    for bad in ("\\u0000", "\\ud800", "\\udfff", "\\ud83d!", "a\\u0000b"):
        for text in (
            f'{{"type": "register", "screen_name": "{bad}"}}',
            f'{{"type": "join", "service": "dm_check", "profile": {{"source": "{bad}"}}}}',
            f'{{"type": "join", "service": "dm_check", "profile": {{"{bad}": 1}}}}',
            f'{{"type": "services", "{bad}": 1}}',
            f'{{"type": "services", "ref": "{bad}"}}',
            f'{{"type": "report", "service": "dm_check", "kind": "cannot_work", "text": "{bad}"}}',
            f'{{"type": "release", "bucket_id": "{bad}", "claim": 1}}',
            f'{{"type": "submit", "bucket_id": "{bad}", "claim": 1, "results": [], "final": true}}',
            f'{{"type": "submit", "bucket_id": "{bucket["bucket_id"]}", "claim": {bucket["claim"]},'
            f' "results": [{{"item": {bucket["items"][0]["item"]}, "dm": "{bad}"}}], "final": true}}',
        ):
            answer = await raw(client, text)
            assert answer.get("code") == "bad_message", (text, answer)
    assert (await client.submit(bucket))["closed"] is True


async def test_nested_too_deep(here: Neighbourhood) -> None:
    client = await here.server.client()
    await client.hello("deep")
    await client.ok("register", screen_name="deep", services=[{"service": "dm_check", "profile": {"source": "a"}}])
    await here.admin.add(1, prefix="deep")
    bucket = await client.bucket()

    def nested(depth: int) -> object:
        """Return a value of that depth in a message: the message itself is the first level."""
        value: object = 1
        for _ in range(depth - 1):
            value = [value]
        return value

    for depth, code in ((16, "unsupported"), (17, "bad_message"), (60, "bad_message"), (3000, "bad_message")):
        text = '{"type": "services", "more": ' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
        assert (await raw(client, text))["code"] == code, depth
    fields = submission(bucket)
    for depth, code in ((14, "bad_result"), (15, "bad_message")):  # the array and the result are two levels more
        fields["results"][0]["dm"] = nested(depth)
        assert await client.refused("submit", **fields) == code, depth
    assert (await client.submit(bucket))["closed"] is True


# Too much


async def test_too_many_messages(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(messages_per_minute=600))
    client = await here.server.client()
    await client.hello("noisy")
    answers = [client.send("services") for _ in range(300)]
    assert await client.close_code() == 4429
    given = [answer.result() for answer in answers if answer.done()]
    refused = [one for one in given if one["type"] == "error"]
    assert 59 <= len(given) - len(refused) <= 70
    assert {(one["code"], one["scope"]) for one in refused} == {("rate_limited", "connection")}
    assert all(0 < one["retry_after"] <= 0.11 for one in refused)
    await here.notices_nothing()


async def test_who_waits_after_too_many_messages_may_go_on(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(messages_per_minute=600))
    client = await here.server.client()
    await client.hello("patient")
    for burst in (95, 35, 35):
        answers = await asyncio.gather(*(client.ask_for("services") for _ in range(burst)))
        refused = [one for one in answers if one["type"] == "error"]
        assert 20 < len(refused) < 50
        await asyncio.sleep(refused[-1]["retry_after"] + 0.05)
        await client.ok("services")
    await here.notices_nothing()


async def test_connections_from_one_address(start_server: StartServer) -> None:
    server = await start_server(connections_per_address=3)
    neighbour, second, third = await server.volunteer("neighbour"), await server.client(), await server.client()
    with pytest.raises(InvalidStatus) as refusal:
        await server.client()
    assert refusal.value.response.status_code == 429
    await second.hello("second")
    await second.close()
    await third.close()

    async def free() -> bool:
        try:
            await server.client()
        except InvalidStatus:
            return False
        return True

    await eventually(free, "the places of those that left are not free")
    await works_well(server, await server.admin(), neighbour)


async def test_sessions_of_a_node(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(max_sessions=2))
    second = await here.server.client()
    with pytest.raises(InvalidStatus) as refusal:
        await here.server.client()
    assert refusal.value.response.status_code == 503
    await second.hello("second")
    await here.server.admin()  # the admin channel is not shut by it
    await here.notices_nothing()


@pytest.mark.long
@pytest.mark.measured
async def test_nothing_more_is_read_from_who_does_not_read_and_it_is_cut_off(start_server: StartServer) -> None:
    server = await start_server(messages_per_minute=10_000_000)
    here = await neighbourhood(server)
    loop = asyncio.get_running_loop()

    async def cut_off(client: str) -> int:
        reader = await RawPeer.open(server, receive_buffer=4 * KIB)
        await reader.hello(client)
        (session,) = [peer for peer in server.node.parts.sessions.clients if peer.client_id == client]
        begun = loop.time()
        with suppress(TimeoutError):  # the server does not take them any more
            for _ in range(20_000):
                reader.frame(b'{"type":"services"}')
                if reader.writer.transport.get_write_buffer_size() > 64 * KIB:
                    await within(reader.writer.drain(), 1)
        assert session.unread() < 128 * KIB

        async def gone() -> bool:
            return not (await here.admin.ok("client.show", client_id=client))["connected"]

        await eventually(gone, "still there", 15)
        assert loop.time() - begun < 17
        return await reader.close_code()

    codes = await asyncio.gather(*(cut_off(f"reader{number}") for number in range(3)))
    assert set(codes) <= {4409, 1006}  # who reads the rest too late finds the connection gone
    await here.notices_nothing()


async def test_what_waits_for_all_peers_together_is_bounded(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinger, "MAX_UNREAD_BYTES_OF_ALL", 256 * KIB)
    server = await start_server()
    here = await neighbourhood(server)
    readers = [await RawPeer.open(server, receive_buffer=4 * KIB) for _ in range(3)]
    for number, reader in enumerate(readers):
        await reader.hello(f"reader{number}")
    sessions = [peer for peer in server.node.parts.sessions.clients if peer.client_id.startswith("reader")]
    for session in sessions:
        session.push(b"{}" * 4096 * KIB)  # more than the buffers of the system take

    async def bounded() -> bool:
        return sum(session.unread() for session in server.node.parts.sessions.clients) <= 256 * KIB

    await eventually(bounded, "more waits than may")
    assert any(not session.alive for session in sessions)
    await here.notices_nothing()


# Who may come


async def test_origins_on_the_client_channel(start_server: StartServer) -> None:
    here = await neighbourhood(await start_server(allowed_origins=("https://good.example",)))
    own = here.server.url.replace("ws://", "http://")
    for origin in ("https://evil.example", own, "null", "https://good.example.evil.example"):
        with pytest.raises(InvalidStatus) as refusal:
            await here.server.client(origin=origin)
        assert refusal.value.response.status_code == 403
    for origin in ("https://good.example", "HTTPS://GOOD.example"):
        client = await here.server.client(origin=origin)
        assert (await client.hello("page"))["type"] == "welcome"
    await here.notices_nothing()


async def test_the_subprotocol_is_chosen_and_a_client_that_offers_none_is_served(here: Neighbourhood) -> None:
    client = await here.server.client()
    assert client.connection.subprotocol == SUBPROTOCOL
    for offered in (None, ["other.v9"]):
        connection = await connect(f"{here.server.url}/v1/client", subprotocols=offered)  # type: ignore[arg-type]  # a NewType
        assert connection.subprotocol is None
        await connection.send(hello_text())
        assert json.loads(await connection.recv())["type"] == "welcome"
        await connection.close()


async def test_there_is_no_other_channel(here: Neighbourhood) -> None:
    for path in ("/", "/v2/client", "/v1/client/", "/v1/clients"):
        with pytest.raises(InvalidStatus) as refusal:
            await connect(here.server.url + path)
        assert refusal.value.response.status_code == 404


async def test_wrong_tokens_on_the_admin_channel(here: Neighbourhood) -> None:
    for token, code, close in (
        ("guess", "unauthorized", 4500),
        ("", "unauthorized", 4500),
        (await here.server.token("viewer"), "forbidden", 4501),
        (await here.server.token("enrolment"), "forbidden", 4501),
    ):
        peer = await Admin.open(f"{here.server.url}/v1/admin", here.server.stack)
        assert await peer.refused("hello", protocol=1, token=token) == code
        assert await peer.close_code() == close


async def test_a_client_request_on_the_admin_channel_and_an_operator(here: Neighbourhood) -> None:
    peer = await Admin.open(f"{here.server.url}/v1/admin", here.server.stack)
    assert await peer.refused("service.list") == "out_of_order"
    assert await peer.refused("ask", service="dm_check", count=1) == "unsupported"
    assert await peer.refused("hello", protocol=2, token="x") == "unsupported"
    assert await peer.close_code() == 4503
    operator = await here.server.admin("operator")
    assert await operator.refused("token.list") == "forbidden"
    assert await operator.refused("item.delete", keys=["a"]) == "forbidden"
    assert (await operator.ok("service.list"))["rows"]


async def test_a_deactivated_client(here: Neighbourhood) -> None:
    client = await here.server.volunteer("bad")
    await here.admin.add(1, prefix="bad")
    bucket = await client.bucket()
    await here.admin.ok("client.deactivate", client_id="bad")
    lost = await client.push("bucket_lost")
    assert (lost["bucket_id"], lost["reason"]) == (bucket["bucket_id"], "deactivated")
    assert await client.close_code() == 4502
    again = await here.server.client()
    answer = await again.ask_for("hello", protocol=1, client_id="bad", secret=secret_of("bad"))
    assert answer["code"] == "client_deactivated"
    assert await again.close_code() == 4502
