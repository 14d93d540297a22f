"""Ways of breaking the program on purpose, each of which the checker must catch.

A mutation is applied in the process of a node, to the modules of the program before it starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import asyncpg

from coordinator.errors import Unavailable
from coordinator.flow import commits, lease, release
from coordinator.flow.client_counters import ClientCounters
from coordinator.store import claims, nodes, result_copy, results
from coordinator.store.results import CheckedSubmit, SubmitOutcome


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way; `kinds` are the faults that let it be seen: one each `every` seconds, for so many `seconds`."""

    apply: Callable[[], None]
    kinds: tuple[str, ...]
    seconds: float
    every: float


MUTATIONS: dict[str, Mutation] = {}


def mutation(
    *kinds: str, seconds: float = 10.0, every: float = 1.0
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Add a function to the mutations, under its name."""

    def add(apply: Callable[[], None]) -> Callable[[], None]:
        MUTATIONS[apply.__name__] = Mutation(apply, kinds or ("cut_clients",), seconds, every)
        return apply

    return add


def put(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of one of the program's."""
    assert callable(getattr(owner, name))
    setattr(owner, name, function)


def rewrite(module: ModuleType, name: str, *changes: tuple[str, str]) -> None:
    """Change the text of a statement; each passage must be in it."""
    statement = getattr(module, name)
    for old, new in changes:
        assert old in statement, (name, old)
        statement = statement.replace(old, new)
    setattr(module, name, statement)


def as_if_stored(submit: CheckedSubmit) -> SubmitOutcome:
    """The answer that a submit gets if all goes well."""
    return SubmitOutcome(len(submit.rows), 0, 0, closed=submit.final, duplicate=False)


# Submits


@mutation("kill_node", "terminate_backends")
def answers_before_the_commit() -> None:
    add, storing = commits.Commits.add, set[asyncio.Task[None]]()

    async def answer_at_once(self: commits.Commits, settling: CheckedSubmit) -> SubmitOutcome:
        async def store() -> None:
            await asyncio.sleep(0.3)
            await asyncio.gather(add(self, settling), return_exceptions=True)

        storing.add(asyncio.create_task(store()))
        return as_if_stored(settling)

    put(commits.Commits, "add", answer_at_once)


@mutation("terminate_backends", "cut_database", "kill_postgres")
def takes_an_unknown_outcome_for_a_good_one() -> None:
    fail = commits._fail

    def succeed(waiting: Any, failure: Exception) -> None:
        if not isinstance(failure, Unavailable):
            fail(waiting, failure)
        elif not waiting.answer.done():
            waiting.answer.set_result(as_if_stored(waiting.settling))

    put(commits, "_fail", succeed)


@mutation()
def loses_the_last_row() -> None:
    encode = result_copy.encode_rows

    def all_but_one(service: Any, claim: Any, rows: Iterable[tuple[Any, str]]) -> bytes:
        return encode(service, claim, list(rows)[:-1])

    put(results, "encode_rows", all_but_one)


@mutation()
def mixes_up_values() -> None:
    encode = result_copy.encode_rows

    def rotated(service: Any, claim: Any, rows: Iterable[tuple[Any, str]]) -> bytes:
        found = list(rows)
        values = [value for _, value in found]
        return encode(service, claim, [(item, v) for (item, _), v in zip(found, values[1:] + values[:1], strict=True)])

    put(results, "encode_rows", rotated)


@mutation("cut_clients", "kill_clients")
def takes_submits_of_former_holders() -> None:
    rewrite(
        results,
        "_SETTLE",
        ("b.claim_id = s.claim_id\n       AND b.client_id IS NOT DISTINCT FROM s.client_id", "s.claim_id > 0"),
    )


@mutation("cut_clients", "terminate_backends")
def stores_a_repeat_again() -> None:
    settle_one = results.settle_one

    async def store_twice(db: Any, submit: CheckedSubmit, window: float) -> Any:
        outcome, rows = await settle_one(db, submit, window)
        if outcome.duplicate:
            items: Sequence[Any] = [item for item, _ in submit.rows]
            await db.execute(
                """INSERT INTO result (item_id, service_id, claim_id, value)
                   SELECT item_id, service_id, nextval('claim_number'), value FROM result
                    WHERE item_id = ANY ($1::bigint[]) AND claim_id = $2""",
                items,
                submit.claim,
            )
        return outcome, rows

    put(results, "settle_one", store_twice)


@mutation()
def forgets_what_is_left_over() -> None:
    settle_one = results.settle_one

    async def close(db: Any, submit: CheckedSubmit, window: float) -> Any:
        outcome, rows = await settle_one(db, submit, window)
        if outcome.freed:
            await db.execute("UPDATE bucket SET state = 'done', split_at = NULL WHERE bucket_id = $1", submit.bucket_id)
        return outcome, rows

    put(results, "settle_one", close)


@mutation("fail_over", every=2.0, seconds=14.0)
def does_not_wait_for_the_standby() -> None:
    create_pool = asyncpg.create_pool

    def local(*words: Any, server_settings: dict[str, str], **more: Any) -> Any:
        return create_pool(*words, server_settings={**server_settings, "synchronous_commit": "local"}, **more)

    put(asyncpg, "create_pool", local)


# Claims


@mutation()
def claims_without_skip_locked() -> None:
    """The time between the look and the change is stretched, as a loaded database does."""
    rewrite(
        claims,
        "_CLAIM",
        ("LIMIT $5 FOR UPDATE OF b SKIP LOCKED", "LIMIT $5"),
        ("CROSS JOIN served s ", "CROSS JOIN served s CROSS JOIN (SELECT pg_sleep(0.1)) AS pause "),
    )


@mutation("kill_clients", "cut_clients")
def gives_an_old_claim_number_again() -> None:
    for name in ("_CLAIM", "_CLAIM_UNBLOCKED"):
        noted = "$1, client_id, session_id, $4, ~settled FROM taken)"
        rewrite(
            claims,
            name,
            ("nextval('claim_number')", "CASE b.claim_id WHEN 0 THEN nextval('claim_number') ELSE b.claim_id END"),
            (
                noted,
                noted.removesuffix(")")
                + " ON CONFLICT (claim_id) DO UPDATE SET client_id = excluded.client_id, ended = NULL, ended_at = NULL,"
                " session_id = excluded.session_id, boot = excluded.boot)",
            ),
        )


@mutation("cut_clients", "kill_clients")
def releases_whatever_is_current() -> None:
    rewrite(claims, "_RELEASE_CLAIM", ("claim_id = $6", "$6::bigint > 0"))


@mutation("kill_clients", "cut_clients")
def forgets_the_disconnected() -> None:
    async def end_nothing(self: release.Releases, holder: Any, delivered: Any, **more: Any) -> None:
        self._ended.put_nowait(holder.session_id)

    put(release.Releases, "_end_session", end_nothing)


# Nodes


@mutation()
def takes_from_nodes_that_live() -> None:
    condition = "NOT EXISTS (SELECT FROM node n WHERE n.boot = b.boot AND n.state <> 'gone')"
    rewrite(claims, "_RELEASE_CRASHED", (condition, "true"))


@mutation("stop_node", every=4.0, seconds=16.0)
def goes_on_without_a_lease() -> None:
    async def renewed(*words: Any) -> bool:
        await renew(*words)
        return True

    renew = nodes.renew
    put(nodes, "renew", renewed)
    put(lease.Lease, "_give_up", lambda self: None)


@mutation("kill_node", every=3.0, seconds=12.0)
def charges_clients_for_crashes() -> None:
    claims.CRASHED = claims.EndReason("crashed", 1, "disconnects")


@mutation()
def counts_twice() -> None:
    write = ClientCounters._write

    async def write_twice(self: ClientCounters, database: Any, flush: Any, by_service: Any) -> Any:
        await write(self, database, flush, by_service)
        self._flushes += 1
        return await write(self, database, replace(flush, number=self._flushes), by_service)

    put(ClientCounters, "_write", write_twice)
