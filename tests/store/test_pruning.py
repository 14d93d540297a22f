"""Every table is listed with its bound, and what strangers make grow is deleted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from coordinator.flow.pruner import Pruner
from coordinator.model import OTHER_KINDS, ClientId
from coordinator.store import claims, clients, health, pruning
from coordinator.store.pool import Database
from tests.harness import Server
from tests.store.bench import Bench, Worker, blocked, submit

README = (Path(__file__).parents[2] / "deploy" / "README.md").read_text(encoding="utf-8")

TABLES = """
SELECT relname FROM pg_class
 WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND NOT relispartition"""


def listed() -> set[str]:
    """The tables that the operator is told of."""
    part = README.partition("## What grows")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


async def test_every_table_is_listed_with_its_bound(server: Server, database: Database) -> None:
    async with database.connection() as db:
        there = {row["relname"] for row in await db.fetch(TABLES)}
    assert there == listed()


async def left(bench: Bench, table: str) -> int:
    return int(await bench.value(f"SELECT count(*) FROM {table}"))


async def test_a_client_that_never_worked_goes_after_a_day_with_all_that_is_known_of_it(bench: Bench) -> None:
    for name in ("never", "worked", "recent", "banned", "barred", "here", "holding"):
        await bench.worker(name)
    await bench.execute("UPDATE client SET registered_at = now() - interval '25 hours' WHERE client_id <> 'recent'")
    await bench.execute("UPDATE membership SET last_access = now() - interval '25 hours'")
    await bench.execute("UPDATE membership SET settled = 1, taken_back = 1 WHERE client_id = 'worked'")
    await bench.execute("UPDATE client SET deactivated = 'spam' WHERE client_id = 'banned'")
    await bench.execute("UPDATE membership SET inactive = 'admin' WHERE client_id = 'barred'")
    await bench.execute(
        "INSERT INTO session (session_id, client_id, boot, address) VALUES (gen_random_uuid(), 'here', 1, '::1')"
    )
    await bench.execute(
        "INSERT INTO return_block (client_id, bucket_id, times, until) VALUES ('never', gen_random_uuid(), 1, now())"
    )
    await bench.held(await bench.worker("holding"))
    await bench.execute("UPDATE membership SET last_access = now() - interval '25 hours'")
    async with bench.database.transaction() as db:
        assert await pruning.forget_clients(db, "") == "worked"
        assert await pruning.forget_clients(db, "worked") == ""
    found = await bench.rows("SELECT client_id FROM client ORDER BY 1")
    assert [row["client_id"] for row in found] == ["banned", "barred", "here", "holding", "recent", "worked"]
    assert await left(bench, "membership") == 6
    assert await left(bench, "return_block") == 0
    await bench.worker("never")  # its id is free again


async def begin_session(bench: Bench, worker: Worker) -> bool:
    async with bench.database.connection() as db:
        return await clients.begin_session(db, worker.session, bench.boot)


async def test_a_client_that_comes_back_while_it_would_be_forgotten_is_not(bench: Bench) -> None:
    """Else it is connected, and is served nothing as long as it stays."""
    ada = await bench.worker("ada")
    await bench.execute("UPDATE client SET registered_at = now() - interval '25 hours'")
    await bench.execute("UPDATE membership SET last_access = now() - interval '25 hours'")

    async with bench.database.transaction() as coming:
        await clients.begin_session(coming, ada.session, bench.boot)
        async with bench.database.transaction() as db:
            assert await pruning.forget_clients(db, "") == "ada"
    assert await left(bench, "client") == await left(bench, "session") == 1

    await bench.execute("DELETE FROM session")
    async with bench.database.transaction() as db:
        await pruning.forget_clients(db, "")
        back = asyncio.ensure_future(begin_session(bench, ada))
        await blocked(db)
    assert await back is False
    assert await left(bench, "client") == await left(bench, "session") == 0


async def test_claims_through_which_nothing_came_go_after_a_month(bench: Bench) -> None:
    ada = await bench.worker("ada")
    done, returned, held = await bench.held(ada), await bench.held(ada), await bench.held(ada)
    await bench.settle(submit(done))
    await bench.release(returned, claims.RELEASED)
    await bench.execute("UPDATE claim SET ended_at = ended_at - interval '29 days'")
    async with bench.database.connection() as db:
        assert await pruning.forget_claims(db, 0) == held.claim
        assert await left(bench, "claim") == 3
        await bench.execute("UPDATE claim SET ended_at = ended_at - interval '2 days'")
        assert await pruning.forget_claims(db, 0) == held.claim
        assert await pruning.forget_claims(db, held.claim) == 0
    found = await bench.rows("SELECT claim_id FROM claim ORDER BY 1")
    assert [row["claim_id"] for row in found] == [done.claim, held.claim]


async def test_sessions_go_after_a_week_and_beyond_a_number_the_oldest(bench: Bench) -> None:
    await bench.execute(
        "INSERT INTO session (session_id, client_id, boot, address, ended_at)"
        " SELECT gen_random_uuid(), 'c' || n, 1, '::1', CASE WHEN n > 0 THEN now() - n * interval '1 day' END"
        "   FROM generate_series(0, 12) n"
    )
    async with bench.database.connection() as db:
        assert await pruning.forget_sessions(db) == 6
        assert await pruning.forget_sessions(db, 3) == 3
        assert await pruning.forget_sessions(db, 3) == 0
    assert await bench.value("SELECT max(now() - ended_at) < interval '5 days' FROM session")
    assert await bench.value("SELECT count(*) FROM session WHERE ended_at IS NULL") == 1


async def test_give_backs_are_remembered_for_a_day_and_up_to_a_number(bench: Bench) -> None:
    await bench.execute(
        "INSERT INTO return_block (client_id, bucket_id, times, until)"
        " SELECT 'c', gen_random_uuid(), 1, now() - n * interval '10 hours' FROM generate_series(-1, 5) n"
    )
    await bench.execute(
        "INSERT INTO newcomer_block (block, service_id, streak, last_at)"
        " SELECT 'b' || n, 1, 1, now() - n * interval '10 hours' FROM generate_series(0, 5) n"
    )
    async with bench.database.connection() as db:
        assert await pruning.forget_returns(db) == 3
        assert await pruning.forget_returns(db, 3) == 1
        assert await pruning.forget_blocks(db) == 3
        assert await pruning.forget_blocks(db, 2) == 1
    assert (await left(bench, "return_block"), await left(bench, "newcomer_block")) == (3, 2)


async def test_kinds_of_the_results_of_a_client_are_few_whatever_it_writes(bench: Bench) -> None:
    ada, bob = ClientId("ada"), ClientId("bob")
    async with bench.database.connection() as db:
        for turn in range(2):
            for client in (ada, bob):
                made_up = [(bench.service, client, f"made up {turn} {n}", n + 1) for n in range(40)]
                await health.count_labels(db, made_up)
        await health.count_labels(db, [(bench.service, ada, "made up 0 39", 5)])

        rows = await bench.rows("SELECT label, n FROM client_label WHERE client_id = 'ada' ORDER BY n DESC")
        kinds = health.LABELS_OF_AN_HOUR
        assert len(rows) == kinds + 1
        assert (rows[0]["label"], rows[1]["label"], rows[1]["n"]) == (OTHER_KINDS, "made up 0 39", 45)
        assert sum(row["n"] for row in rows) == 2 * 820 + 5

        await health.forget_labels(db, [bench.service], 2 * kinds)
        assert await left(bench, "client_label") == 2 * kinds
        await health.forget_labels(db, [bench.service], 3)
    kept = await bench.value("SELECT array_agg(label ORDER BY label) FROM client_label")
    assert kept == ["made up 0 39", OTHER_KINDS, OTHER_KINDS]


async def test_lines_that_clients_cause_are_kept_up_to_a_number_and_those_of_admins_all(bench: Bench) -> None:
    await bench.execute("DELETE FROM activity")
    for action in (*pruning.ACTIONS_OF_CLIENTS, "client.deactivate"):
        await bench.execute(
            "INSERT INTO activity (at, who, action, target, outcome)"
            " SELECT now() - n * interval '1 hour', 'c' || n, $1, 'c', 'ok' FROM generate_series(1, 9) n",
            action,
        )
    async with bench.database.connection() as db:
        assert await pruning.forget_lines(db, 4) == 5
        assert await pruning.forget_lines(db, 4) == 0
    for action in pruning.ACTIONS_OF_CLIENTS:
        kept = await bench.rows("SELECT who FROM activity WHERE action = $1 ORDER BY at DESC", action)
        assert [row["who"] for row in kept] == ["c1", "c2", "c3", "c4"]
    assert await bench.value("SELECT count(*) FROM activity WHERE action = 'client.deactivate'") == 9


async def test_a_round_goes_on_until_nothing_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 2)
    async with server.database.connection() as db:
        await db.execute(
            "INSERT INTO session (session_id, client_id, boot, address, ended_at)"
            " SELECT gen_random_uuid(), 'c', 1, '::1', now() - interval '8 days' FROM generate_series(1, 9)"
        )
        for number in range(5):
            await db.execute(
                "INSERT INTO client (client_id, screen_name, registered_at)"
                " VALUES ($1, 'x', now() - interval '2 days')",
                f"gone{number}",
            )
    pruner = Pruner(server.node.parts.core)
    for _ in range(4):
        await pruner.prune()
    async with server.database.connection() as db:
        assert await db.fetchval("SELECT count(*) FROM session WHERE client_id = 'c'") == 0
        assert await db.fetchval("SELECT count(*) FROM client") == 0


async def test_messages_of_operators_go_when_they_end_and_keep_their_client_until_then(bench: Bench) -> None:
    await bench.worker("never")
    await bench.execute(
        "INSERT INTO notice (level, text, client_id, until) VALUES ('info', 'over', NULL, now()),"
        " ('info', 'of the client', 'never', NULL), ('info', 'stays', NULL, now() + interval '1 hour')"
    )
    async with bench.database.connection() as db:
        assert await pruning.forget_notices(db) == 1
    await bench.execute("UPDATE client SET registered_at = now() - interval '25 hours'")
    await bench.execute("UPDATE membership SET last_access = now() - interval '25 hours'")
    async with bench.database.transaction() as db:
        await pruning.forget_clients(db, "")
    assert await left(bench, "client") == 1
    await bench.execute("DELETE FROM notice WHERE client_id IS NOT NULL")
    async with bench.database.transaction() as db:
        await pruning.forget_clients(db, "")
    assert await left(bench, "client") == 0
    assert [row["text"] for row in await bench.rows("SELECT text FROM notice")] == ["stays"]


async def test_starts_of_nodes_go_a_month_after_their_end_and_beyond_the_newest(bench: Bench) -> None:
    await bench.execute(
        "INSERT INTO node (name, state, version, lease_until) VALUES ('old', 'gone', '1', now() - interval '31 days'),"
        " ('lives', 'live', '1', now()), ('new', 'gone', '1', now()), ('newer', 'gone', '1', now())"
    )
    names = "SELECT array_agg(name ORDER BY boot) FROM node"
    async with bench.database.connection() as db:
        assert await pruning.forget_nodes(db) == 1
        assert await db.fetchval(names) == ["probe", "lives", "new", "newer"]
        assert await pruning.forget_nodes(db, 1) == 1
        assert await db.fetchval(names) == ["probe", "lives", "newer"]
