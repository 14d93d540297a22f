"""The indexes of buckets over a month of handing out, giving back and settling: they stop growing after a day."""

from __future__ import annotations

from tests.bench.figures import Figure
from tests.bench.world import World

DAYS = 30
BUCKETS_A_DAY = 20_000
ROUNDS_A_DAY = 10
VACUUM_EVERY = 5
"""Rounds; Postgres vacuums the table by itself each 2 % of its rows, and so more often."""

INDEXES = ("bucket_ready", "bucket_held", "bucket_holder", "bucket_done")
"""Those of buckets in work; the table and its primary key keep what is done, by design."""

_MAKE = """
INSERT INTO bucket (bucket_id, service_id, rank_at, since, priority, settled)
SELECT gen_random_uuid(), service_id, now() + make_interval(days => {day}, secs => {part} * 7200 + n), now(), 100, B'0'
  FROM service CROSS JOIN generate_series(1, {count}) n WHERE name = 'dm_check'"""

_CLAIM = """
UPDATE bucket SET state = 'claimed', client_id = 'c' || (random() * 100)::int, session_id = gen_random_uuid(), boot = 1,
                  touched_at = now() WHERE state = 'ready'"""

_FREE = """
UPDATE bucket SET state = '{state}', client_id = NULL, session_id = NULL, boot = NULL, touched_at = NULL,
                  shuffle = gen_random_uuid(), settled = B'{settled}', indexed = {indexed}
 WHERE state = 'claimed' AND random() < {share}"""


async def measure(world: World) -> list[Figure]:
    """Measure with no node at work."""
    await world.stop()
    sizes: dict[str, list[float]] = {index: [] for index in INDEXES}

    for day in range(DAYS):
        for part in range(ROUNDS_A_DAY):
            await world.sql(
                _MAKE.format(day=day, part=part, count=BUCKETS_A_DAY // ROUNDS_A_DAY),
                _CLAIM,
                _FREE.format(state="ready", settled="0", indexed="true", share=0.2),
                _CLAIM,
                _FREE.format(state="done", settled="1", indexed="true", share=1.1),
                "UPDATE bucket SET indexed = false WHERE state = 'done' AND indexed",
            )
            if part % VACUUM_EVERY == VACUUM_EVERY - 1:
                await world.sql("VACUUM bucket")
        for index in INDEXES:
            sizes[index].append(float(await world.sql(f"SELECT pg_relation_size('{index}')::float8 / 1024")))

    await world.sql("TRUNCATE bucket")
    churned = BUCKETS_A_DAY / ROUNDS_A_DAY * VACUUM_EVERY
    return [
        Figure(f"{index}: after {DAYS} days against after 2", "times", [kib[-1] / kib[1]], "<= 1.1",
               f"{kib[-1]:,.0f} KiB, {kib[-1] * 1024 / churned:.0f} bytes for each bucket between two vacuums")
        for index, kib in sizes.items()
    ]  # fmt: skip
