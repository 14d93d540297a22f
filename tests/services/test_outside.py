"""Plugins from outside the package: one that uses every hook, and one that does everything wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.flow import plugin_processes, plugin_runner
from coordinator.services import load_plugins, tables_of
from coordinator.store import migrate
from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import eventually

OUTSIDE = Path(__file__).parent / "outside"


@pytest.fixture(autouse=True)
def _installed(example: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(OUTSIDE)
    monkeypatch.syspath_prepend(example)
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("link_alive", "trouble")]:
        del sys.modules[name]


@pytest.fixture
async def server(start_server: StartServer, database: Database) -> Server:
    applied = await migrate.migrate(database, tables_of(load_plugins()))
    assert [(one.plugin, one.number) for one in applied] == [("link_alive", 1), ("link_alive", 2)]
    assert await migrate.migrate(database, tables_of(load_plugins())) == []
    return await start_server()


async def worker(server: Server, service: str, name: str = "worker") -> Volunteer:
    peer = await server.volunteer(name)
    await peer.ok("join", service=service)
    return peer


async def submit(peer: Volunteer, bucket: Message, results: list[Message], *, final: bool = True) -> Message:
    return await peer.ask_for(
        "submit", bucket_id=bucket["bucket_id"], claim=bucket["claim"], results=results, final=final
    )


async def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.connection() as db:
        return [tuple(row) for row in await db.fetch(sql)]


async def test_a_service_with_its_own_table(server: Server, admin: Admin, database: Database) -> None:
    shown = await admin.ok("service.add", service="links", plugin="link_alive")
    assert (shown["title"], shown["settings"]["bucket_size"], shown["settings"]["redirects"]) == ("Link check", 50, 3)
    assert await admin.refused("service.configure", service="links", settings={"redirects": 11}) == "bad_message"
    again = await admin.ok("service.configure", service="links", settings={"redirects": 5, "bucket_size": 2})
    assert (again["settings"]["bucket_size"], again["settings"]["redirects"]) == (2, 5)
    keys = ["https://a.example", "https://b.example", "ftp://c.example"]
    await admin.ok("item.add", items=[{"key": key} for key in keys])
    peer = await worker(server, "links")
    bucket = await peer.bucket("links")
    assert {one["key"] for one in bucket["items"]} == set(keys[:2])
    first, second = bucket["items"]
    bad = await submit(peer, bucket, [{"item": one["item"], "alive": True} for one in bucket["items"]])
    assert bad["code"] == "bad_result"
    assert bad["detail"]["errors"][0] == {
        "item": first["item"],
        "reason": f"{first['key']} answers, so it has a status",
        "path": "$.results[0]",
    }
    part = await submit(peer, bucket, [{"item": first["item"], "alive": True, "status": 200}], final=False)
    assert (part["stored"], part["remaining"]) == (1, 1)
    assert (await submit(peer, bucket, [{"item": second["item"], "alive": False}]))["closed"]
    told = "SELECT label, n FROM client_label ORDER BY label"

    async def labelled() -> bool:
        return await rows(database, told) == [("alive", 1), ("dead", 1)]

    await eventually(labelled, "the kinds of the results are not counted")
    repeat = await submit(peer, bucket, [{"item": second["item"], "alive": False}])
    assert (repeat["type"], repeat["duplicate"]) == ("stored", True)
    seen = await rows(database, "SELECT key, alive, claim FROM link_seen ORDER BY key")
    assert sorted(seen) == sorted([(first["key"], True, bucket["claim"]), (second["key"], False, bucket["claim"])])
    await admin.ok("item.delete", keys=[first["key"]])
    assert await rows(database, "SELECT key FROM link_seen") == [(second["key"],)]


async def test_its_table_follows_when_results_are_taken_back(server: Server, admin: Admin, database: Database) -> None:
    await admin.ok("service.add", service="links", plugin="link_alive")
    await admin.ok("item.add", items=[{"key": "https://a.example"}])
    peer = await worker(server, "links")
    bucket = await peer.bucket("links")
    await submit(peer, bucket, [{"item": bucket["items"][0]["item"], "alive": False}])
    done = await admin.ok("result.invalidate", service="links", dry_run=False, requeue=False)
    assert await rows(database, "SELECT counts FROM link_seen") == [(False,)]
    await admin.ok("result.reinstate", invalidation_id=done["invalidation_id"])
    assert await rows(database, "SELECT counts FROM link_seen") == [(True,)]
    # If it fails, nothing was done.
    async with database.connection() as db:
        await db.execute("ALTER TABLE link_seen RENAME TO link_hidden")
    assert await admin.refused("result.invalidate", service="links", dry_run=False, requeue=False) == "internal"
    assert (await admin.ok("result.list", service="links"))["rows"][0]["valid"] is True


@pytest.mark.parametrize(
    ("do", "code"),
    [
        ("refuse", "bad_result"),
        ("raise", "internal"),
        ("exit", "internal"),
        ("exit hard", "internal"),
        ("block", "internal"),
        ("compute", "internal"),
        ("eat", "internal"),
        ("leak", "internal"),
        ("nonsense", "internal"),
        ("label raises", "internal"),
        ("label answers a number", "internal"),
        ("label tells a story", "internal"),
        ("store raises", "internal"),
        ("store has no table", "internal"),
        ("store swallows", "internal"),
        ("store sleeps", "internal"),
        ("store sends nonsense", "internal"),
    ],
)
async def test_a_plugin_that_fails_harms_only_its_own_submits(
    server: Server,
    admin: Admin,
    database: Database,
    do: str,
    code: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(plugin_runner, "SUBMIT_DEADLINE", 2.0)
    await admin.ok("service.add", service="bad", plugin="trouble")
    await admin.ok("item.add", items=[{"key": "a"}, {"key": "b"}], services=["bad", "dm_check"])
    peer = await worker(server, "bad")
    bucket, good = await peer.bucket("bad"), await peer.bucket("dm_check")
    first, second = (one["item"] for one in bucket["items"])
    failing = peer.send(
        "submit",
        bucket_id=bucket["bucket_id"],
        claim=bucket["claim"],
        results=[{"item": first, "do": "nothing"}, {"item": second, "do": do}],
        final=True,
    )
    assert (await peer.submit(good))["stored"] == 2  # the other service does not wait for it
    answer = await failing
    assert answer["code"] == code, answer
    said = capsys.readouterr().out
    assert ("plugin=trouble" in said) == (code == "internal")
    assert ("MemoryError()" in said) == (do in ("eat", "leak"))
    nothing = "SELECT item_id FROM result JOIN service USING (service_id) WHERE name = 'bad'"
    assert await rows(database, nothing) == []
    stored = await submit(peer, bucket, [{"item": item, "do": "nothing"} for item in (first, second)])
    assert stored["stored"] == 2


async def test_calls_that_never_come_back_leave_no_process_and_hold_nobody_up(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_runner, "SUBMIT_DEADLINE", 1.0)
    await admin.ok("service.add", service="bad", plugin="trouble")
    await admin.ok("item.add", items=[{"key": "a"}], services=["bad", "dm_check"])
    peer = await worker(server, "bad")
    bucket, good = await peer.bucket("bad"), await peer.bucket("dm_check")
    item = bucket["items"][0]["item"]
    # A fault of the plugin ends nothing: the bucket is still there.
    blocked = [asyncio.create_task(submit(peer, bucket, [{"item": item, "do": "compute"}])) for _ in range(3)]
    assert (await peer.submit(good))["stored"] == 1
    assert [(await task)["code"] for task in blocked] == ["internal"] * 3

    assert (await submit(peer, bucket, [{"item": item, "do": "talk"}]))["stored"] == 1
    processes = server.node.parts.work.plugin_runner._processes
    assert [len(free) for free in processes._free.values()] == [1]


async def test_one_client_makes_the_plugin_hang_for_nobody_else(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_runner, "SUBMIT_DEADLINE", 1.0)
    monkeypatch.setattr(plugin_processes, "PROCESSES", 2)
    await admin.ok("service.add", service="bad", plugin="trouble", settings={"bucket_size": 1})
    await admin.ok("item.add", items=[{"key": key} for key in "abcdef"], services=["bad"])
    hanging, other = await worker(server, "bad", "hanging"), await worker(server, "bad", "other")
    held = [await hanging.bucket("bad") for _ in range(4)]
    good = await other.bucket("bad")
    blocked = [
        asyncio.create_task(submit(hanging, bucket, [{"item": bucket["items"][0]["item"], "do": "block"}]))
        for bucket in held
    ]
    assert (await submit(other, good, [{"item": good["items"][0]["item"], "do": "nothing"}]))["stored"] == 1
    assert not all(task.done() for task in blocked)
    assert [(await task)["code"] for task in blocked] == ["internal"] * 4


async def test_a_profile_that_hangs_the_plugin_hangs_nobody_else(
    server: Server, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_runner, "SUBMIT_DEADLINE", 1.0)
    await admin.ok("service.add", service="bad", plugin="trouble")
    await admin.ok("item.add", items=[{"key": "a"}], services=["dm_check"])
    peer, other = await server.volunteer("peer"), await server.volunteer("other")
    joining = asyncio.create_task(peer.refused("join", service="bad", profile={"word": "hangs"}))
    assert (await other.submit(await other.bucket()))["stored"] == 1
    assert await joining == "internal"
    assert await peer.refused("join", service="bad", profile={"word": 7}) == "bad_message"
    await peer.ok("join", service="bad", profile={"word": "good"})


async def test_a_select_that_answers_nonsense_takes_nothing(server: Server, admin: Admin) -> None:
    await admin.ok("service.add", service="bad", plugin="trouble")
    added = await admin.ok("item.add", items=[{"key": "nonsense"}])
    assert added["added"] == 1
    shown = await admin.ok("item.show", key="nonsense")
    assert "bad" not in {one["service"] for one in shown["services"]}
    async with asyncio.timeout(10):
        while not (noted := (await admin.ok("activity.list", action="plugin.fault"))["rows"]):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert [(row["target"], row["outcome"]) for row in noted] == [
        ("bad", "select: TypeError(\"select answered 'perhaps', not True or False\")")
    ]
