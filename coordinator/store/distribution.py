"""Spreading the results over several machines, by the extension Citus.  deploy/citus/README.md

Only `result` is distributed, by its item; all else stays on the coordinating node, where every claim and every check
is made.  A submit is one transaction over all of them, committed in two phases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.errors import ConfigError
from coordinator.store.pool import Connection

CITUS = 13
"""The major version that was tried."""

SHARDS_PER_WORKER = 4
"""Shards that each worker has unless told otherwise: a worker that is added later can take over some."""

MOVING_DEADLINE = 24 * 3600.0
"""Seconds that moving the results may take."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A machine that is to have results, and two of its settings."""

    name: str
    fsync: str
    max_prepared_transactions: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The state of a database: `citus` is its version, `shards` those that the results have; None if there is none."""

    citus: str | None
    owner: bool
    """Whether this role owns the database, and may change its settings."""
    results: int
    bytes: int
    coordinating: bool = False
    """Whether this is the node that the others know as their coordinator."""
    workers: Sequence[Worker] = ()
    shards: int | None = None


@dataclass(frozen=True, slots=True)
class DistributionStep:
    """One statement, and what it does in words."""

    does: str
    sql: str
    values: tuple[Any, ...] = ()


_HERE = """
SELECT (SELECT extversion FROM pg_extension WHERE extname = 'citus') AS citus,
       pg_has_role(current_user, d.datdba, 'USAGE') AS owner,
       (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'result'::regclass) AS results,
       pg_total_relation_size('result') AS bytes
  FROM pg_database d WHERE d.datname = current_database()"""

_COORDINATING = "SELECT citus_is_coordinator()"

_WORKERS = """
SELECT nodeid, nodename || ':' || nodeport AS name FROM pg_dist_node
 WHERE isactive AND noderole = 'primary' AND shouldhaveshards ORDER BY nodeid"""

_ON_EACH = "SELECT nodeid, success, result FROM run_command_on_all_nodes($1)"

_SHARDS = "SELECT count(*) FROM pg_dist_shard WHERE logicalrelid = 'result'::regclass"

_SETTINGS = (
    # One connection to each worker: the group commit is one statement at a time anyhow.
    ("citus.max_adaptive_executor_pool_size", "1"),
    # Else what a node of ours copies into its own shards is not seen by it.
    ("citus.show_shards_for_app_name_prefixes", "coordinator"),
)

_SET = """
SELECT format('ALTER DATABASE %I SET %s = %L', current_database(), $1::text, $2::text)"""

_DISTRIBUTE = "SELECT create_distributed_table('result', 'item_id', shard_count := $1)"

_TRUNCATE = "SELECT truncate_local_data_after_distributing_table('result')"

# Those of a node bear the number of its start behind the name; see `connecting.session_name`.
_CONNECT_ANEW = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND (application_name = 'coordinator' OR application_name LIKE 'coordinator %')"""


async def look(db: Connection) -> Facts:
    """Find out what there is; it changes nothing."""
    here = dict(await db.fetchrow(_HERE))
    if here["citus"] is None:
        return Facts(**here)

    workers = await db.fetch(_WORKERS)
    fsync, prepared = [
        {row["nodeid"]: row["result"] if row["success"] else "unknown" for row in await db.fetch(_ON_EACH, question)}
        for question in ("SHOW fsync", "SHOW max_prepared_transactions")
    ]
    return Facts(
        **here,
        coordinating=await db.fetchval(_COORDINATING),
        workers=[
            Worker(row["name"], fsync.get(row["nodeid"], "unknown"), prepared.get(row["nodeid"], "unknown"))
            for row in workers
        ],
        shards=await db.fetchval(_SHARDS) or None,
    )


def plan(facts: Facts, shards: int | None) -> list[DistributionStep]:
    """Say what is to be done, in order; nothing if the results are distributed already.

    Raises:
        ConfigError: something is missing; the sentence says what, and what to do.
    """
    _refuse(facts)
    if facts.shards is not None:
        return []

    count = len(facts.workers) * SHARDS_PER_WORKER if shards is None else shards
    where = ", ".join(worker.name for worker in facts.workers)
    return [
        *(
            DistributionStep(f"set {name} = {value} for this database", _SET, (name, value))
            for name, value in _SETTINGS
        ),
        DistributionStep(
            f"move about {facts.results:,} results ({facts.bytes:,} bytes) into {count} shards by item_id, on {where}; "
            "nothing is stored meanwhile",
            _DISTRIBUTE,
            (count,),
        ),
        DistributionStep("delete what stays behind of them here", _TRUNCATE),
        DistributionStep("end the connections of all nodes, so that they connect anew", _CONNECT_ANEW),
    ]


def _refuse(facts: Facts) -> None:
    """Check that it can be done.

    Raises:
        ConfigError: it cannot.
    """
    if facts.citus is None:
        raise ConfigError(
            "database: the extension Citus is not in it; on each machine install Citus, add citus to "
            "shared_preload_libraries and run CREATE EXTENSION citus in this database, then name the machines here "
            "with citus_set_coordinator_host and citus_add_node"
        )
    if int(facts.citus.partition(".")[0]) != CITUS:
        raise ConfigError(f"database: it has Citus {facts.citus}; version {CITUS} was expected")
    if not facts.coordinating:
        raise ConfigError(
            "database: it is no coordinating node of Citus; connect to that one, or name it with "
            "citus_set_coordinator_host"
        )
    if not facts.workers:
        raise ConfigError("database: no machine may have shards; name one with citus_add_node")
    if not facts.owner:
        raise ConfigError("database: expected the role that owns it, since settings of the database are changed")

    for worker in facts.workers:
        if worker.fsync != "on":
            raise ConfigError(
                f"database: the worker {worker.name} runs with fsync={worker.fsync}, so a crash would lose "
                "acknowledged results"
            )
        if worker.max_prepared_transactions == "0":
            raise ConfigError(
                f"database: the worker {worker.name} has max_prepared_transactions=0; expected more than the "
                "connections of all nodes, since each submit is committed in two phases"
            )


async def carry_out(db: Connection, steps: Sequence[DistributionStep]) -> None:
    """Do it, each step on its own; what was done stays, and doing it again goes on from there."""
    for step in steps:
        if step.sql == _SET:
            await db.execute(await db.fetchval(step.sql, *step.values))
        else:
            await db.fetch(step.sql, *step.values, timeout=MOVING_DEADLINE)
