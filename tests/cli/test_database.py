"""`db …` and the first token, on a real Postgres."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import asyncpg
import pytest

from coordinator.credentials import hash_token
from coordinator.embedded import EmbeddedPostgres
from coordinator.errors import ConfigError
from coordinator.prepare import prepare_database
from coordinator.store import migrate
from tests.cli.conftest import Run


@pytest.fixture
def empty(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The DSN of a database without a schema."""
    statement(postgres.dsn, "CREATE DATABASE cli_empty")
    yield postgres.dsn.replace("/coordinator?", "/cli_empty?")
    statement(postgres.dsn, "DROP DATABASE cli_empty WITH (FORCE)")


def statement(dsn: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    async def ask() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *values)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def states(run: Run, dsn: str) -> set[str]:
    shown = run("db", "status", "--database", dsn, "--json")
    assert shown.exit_code == 0, shown.output
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [row["number"] for row in rows if not row["plugin"]] == [one.number for one in migrate.shipped()]
    return {row["state"] for row in rows}


def test_migrating(run: Run, empty: str) -> None:
    assert states(run, empty) == {"pending"}
    done = run("db", "migrate", "--database", empty)
    assert done.exit_code == 0, done.output
    assert states(run, empty) == {"applied"}
    again = run("db", "migrate", "--database", empty)
    assert again.exit_code == 0
    assert "Nothing to do" in again.stderr


def test_an_unknown_schema_is_1_in_one_sentence(run: Run, empty: str) -> None:
    run("db", "migrate", "--database", empty)
    statement(empty, "INSERT INTO migration (number, name, checksum) VALUES (9999, 'future', 'x')")
    done = run("db", "migrate", "--database", empty)
    assert done.exit_code == 1
    assert "9999" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_first_token(run: Run, empty: str) -> None:
    words = ("token", "issue", "--database", empty, "--role", "admin", "--label", "first", "--json")
    early = run(*words)
    assert early.exit_code == 2
    assert "db migrate" in early.stderr
    run("db", "migrate", "--database", empty)
    done = run(*words)
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown.keys() == {"token_id", "token", "role", "label"}
    rows = statement(empty, "SELECT token_id, hash, role, label FROM token")
    assert rows == [(shown["token_id"], hash_token(shown["token"]), "admin", "first")]
    assert statement(empty, "SELECT action, target FROM activity") == [("token.issue", shown["token_id"])]


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_what_is_no_citus_is_not_distributed(run: Run, empty: str, words: list[str]) -> None:
    early = run("db", "distribute", "--database", empty, *words)
    assert early.exit_code == 2
    assert "db migrate" in early.stderr

    run("db", "migrate", "--database", empty)
    refused = run("db", "distribute", "--database", empty, *words)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("coordinator: database: the extension Citus is not in it; ")
    assert refused.stderr.count("\n") == 1
    assert refused.stdout == ""


def test_the_embedded_one_if_it_runs(run: Run, postgres: EmbeddedPostgres) -> None:
    assert run("db", "status", "--data", str(postgres.root)).exit_code == 0
    missing = run("db", "status", "--data", "/nowhere/at/all")
    assert missing.exit_code == 2
    assert "no embedded Postgres runs" in missing.stderr


def test_no_database_there_is_3(run: Run) -> None:
    assert run("db", "status", "--database", "postgresql://x@127.0.0.1:1/x").exit_code == 3


def test_the_schema_as_sql(run: Run) -> None:
    shown = run("db", "sql").stdout
    assert all(one.sql.strip() in shown for one in migrate.shipped())


def test_the_form_of_keys_is_chosen_once(run: Run, empty: str) -> None:
    assert run("db", "migrate", "--database", empty, "--key-form", "exact").exit_code == 0
    assert statement(empty, "SELECT form FROM key_form") == [("exact",)]
    for again in ([], ["--key-form", "exact"]):
        assert run("db", "migrate", "--database", empty, *again).exit_code == 0

    other = run("db", "migrate", "--database", empty, "--key-form", "handle")
    assert other.exit_code == 2
    assert "key_form: expected exact, the form in which this database compares keys" in other.stderr
    assert run("db", "migrate", "--database", empty, "--key-form", "other").exit_code == 2
    assert statement(empty, "SELECT form FROM key_form") == [("exact",)]


async def test_a_server_refuses_another_form(dsn: str) -> None:
    assert (await prepare_database(dsn, None, "handle")).dsn == dsn
    with pytest.raises(ConfigError, match="key_form: expected handle"):
        await prepare_database(dsn, None, "exact")
