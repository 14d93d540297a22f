"""The progress that everybody is told: the figures, the badge, who may read them, and what they cost."""

from __future__ import annotations

import asyncio
import http.client
import json
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from coordinator.config import Settings
from coordinator.errors import ConfigError, Unavailable
from coordinator.serve import progress_pages
from coordinator.serve.progress_pages import BADGE_PATH, JSON_PATH, PROGRESS_PATHS, Onlooker, ProgressPages, badge
from coordinator.stats import progress as report
from coordinator.stats.progress import percent
from coordinator.store.pool import Database
from coordinator.wire.progress import Progress
from tests.conftest import StartServer
from tests.harness import Message, Server
from tests.serve.test_stats_tables import pages, recorded, settle
from tests.serve.tools import configure, execute

OTHERS = {"Origin": "https://example.org"}

NOTHING = Progress("", "2026-01-01T00:00:00Z", 0, 0, 0.0, 0.0, None, 0, [], [], [])


async def ask(
    server: Server, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """The answer to a request without a token."""

    def request() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.node.port, timeout=5)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    return await asyncio.to_thread(request)


async def progress_of(server: Server) -> Message:
    status, headers, body = await ask(server, JSON_PATH)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert headers["Cache-Control"] == f"public, max-age={progress_pages.MAX_ANSWER_AGE}"
    found: Message = json.loads(body)
    assert msgspec.to_builtins(msgspec.convert(found, Progress)) == found
    return found


@pytest.fixture
async def worked(start_server: StartServer, database: Database, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A node that is named, on which ada has settled three items of nine, bob three who is flagged, and cleo none."""
    monkeypatch.setattr(report, "PROGRESS_SECONDS", 600.0)
    await configure(database, bucket_size=3)
    server = await start_server(project="Letters & <numbers>")
    await (await server.admin()).add(9, services=["dm_check"])
    for name in ("ada", "bob"):
        await settle(server, name, 1)
    await server.volunteer("cleo")
    await recorded(server)
    await execute(
        database,
        "UPDATE membership SET health = 'flagged', health_reason = 'no' WHERE client_id = 'bob' AND settled > 0",
    )
    return server


async def test_the_figures_are_those_of_the_work_and_are_found_once(worked: Server) -> None:
    found = await progress_of(worked)
    assert (found["project"], found["settled"], found["total"], found["percent"]) == ("Letters & <numbers>", 6, 9, 66.6)
    assert found["volunteers"] == 3
    assert (found["services"][0]["service"], found["services"][0]["settled"]) == ("dm_check", 6)
    assert [(one["screen_name"], one["service"], one["items"]) for one in found["contributors"]] == [
        ("ada", "dm_check", 3)
    ]
    assert found["leaders"] == [{"place": 1, "screen_name": "ada", "settled": 3}]

    await settle(worked, "cleo", 1)
    await recorded(worked)
    assert await progress_of(worked) == found, "it is kept, whoever asks"
    viewer = await worked.viewer()
    assert await pages(viewer, "progress") == [found]
    assert await viewer.refused("get", topic="progress", filter={"service": "dm_check"}) == "bad_message"


async def test_revoked_services_do_not_count_and_none_is_no_trouble(start_server: StartServer) -> None:
    server = await start_server()
    admin = await server.admin()
    await admin.add(3, services=["dm_check"])
    await admin.ok("service.revoke", service="dm_check")
    found = await progress_of(server)
    assert (found["total"], found["percent"], found["contributors"], found["leaders"]) == (0, 0.0, [], [])
    assert {one["service"] for one in found["services"]} == {"follower_check", "following_check"}


async def test_the_badge_is_an_image_of_the_percentage(worked: Server) -> None:
    status, headers, body = await ask(worked, BADGE_PATH)
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    assert ElementTree.fromstring(body).get("aria-label") == "Letters & <numbers>: 66.6 %"


@pytest.mark.parametrize(
    ("name", "settled", "total", "told"),
    [
        ("", 0, 0, "checked: no items"),
        ("", 1, 3, "checked: 33.3 %"),
        ("\"a' <b>&amp;", 999_999, 1_000_000, "\"a' <b>&amp;: 99.9 %"),
        ("検査", 5, 5, "検査: 100 %"),
        ("x" * 80, 0, 5, f"{'x' * 39}…: 0.0 %"),
    ],
)
def test_badges_of_any_name(name: str, settled: int, total: int, told: str) -> None:
    shown = msgspec.structs.replace(
        NOTHING, project=name, settled=settled, total=total, percent=percent(settled, total)
    )
    image = ElementTree.fromstring(badge(shown))
    assert image.get("aria-label") == told
    texts = image.findall(".//{*}text")
    ends = [float(text.get("x", "")) + float(text.get("textLength", "")) for text in texts]
    assert ends == sorted(ends)
    assert ends[-1] < float(image.get("width", ""))


@pytest.mark.parametrize(
    ("settings", "headers", "status", "readable_by"),
    [
        ({}, {}, 200, None),
        ({}, OTHERS, 200, None),
        ({}, {"Origin": "http://localhost:{port}", "Host": "localhost:{port}"}, 200, "http://localhost:{port}"),
        ({"allowed_origins": ["https://example.org"]}, OTHERS, 200, "https://example.org"),
        ({}, {"X-Forwarded-For": "192.0.2.1"}, 403, None),
        ({"viewers": "open"}, OTHERS, 200, "*"),
        ({"viewers": "open"}, {"X-Forwarded-For": "192.0.2.1"}, 200, "*"),
        ({"viewers": "token"}, OTHERS, 403, None),
    ],
)
async def test_who_may_read_it(
    start_server: StartServer, settings: dict[str, Any], headers: dict[str, str], status: int, readable_by: str | None
) -> None:
    server = await start_server(**settings)
    port = server.node.port
    sent = {name: value.format(port=port) for name, value in headers.items()}
    expected = None if readable_by is None else readable_by.format(port=port)
    for path in PROGRESS_PATHS:
        for method in ("GET", "HEAD"):
            answered, told, body = await ask(server, path, sent, method)
            assert (answered, told.get("Access-Control-Allow-Origin")) == (status, expected), path
            assert told["Cross-Origin-Resource-Policy"] == ("same-origin" if expected is None else "cross-origin")
            assert told.get("Vary") == (None if expected == "*" else "Origin")
            assert (body == b"") is (method == "HEAD")
    assert (await ask(server, JSON_PATH, sent, "POST"))[0] == 405


async def test_without_a_database_it_says_when_to_ask_again() -> None:
    async def away() -> Progress:
        raise Unavailable("The database is away.")

    for path in PROGRESS_PATHS:
        answer = await ProgressPages(away).get(path, Onlooker(True, "*"))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("name", ["x" * 81, "two\nlines", "bell\x07"])
def test_names_of_projects_are_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="project: expected one line"):
        Settings(project=name)


async def test_a_client_is_told_whether_its_page_opens_without_a_token(start_server: StartServer) -> None:
    server = await start_server(viewers="token")
    for headers, viewers in (({}, "token"), ({"X-Forwarded-For": "192.0.2.1"}, "token")):
        peer = await server.client(additional_headers=headers)
        assert (await peer.hello("ada"))["viewers"] == viewers
    server = await start_server(node_name="open")
    for headers, viewers in (({}, "open"), ({"X-Forwarded-For": "192.0.2.1"}, "token")):
        peer = await server.client(additional_headers=headers)
        assert (await peer.hello("ada"))["viewers"] == viewers
