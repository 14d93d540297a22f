"""A column that has the name of a field goes there by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from msgspec import Struct

from coordinator.model import ServiceSettings
from coordinator.observe.node_load import PendingBuckets
from coordinator.stats.rows import filled, node_report, oldest_rows
from coordinator.store.statistics import OldestItem, ServiceTotals

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Row(Struct):
    name: str
    at: str | None
    bucket_id: str
    count: int = 0


def test_columns_go_into_the_fields_of_their_names() -> None:
    bucket = UUID(int=5)
    columns = {"at": NOON.astimezone(timezone(timedelta(hours=2))), "bucket_id": bucket, "name": "column", "more": 1}
    assert filled(Row, columns, count=3, name="given") == Row("given", "2026-01-31T12:00:00Z", str(bucket), 3)


def test_the_first_source_that_has_a_field_gives_it() -> None:
    row = Row("object", None, "b", 7)
    assert filled(Row, {"name": "mapping", "count": 1}, row) == Row("mapping", None, "b", 1)


def test_a_field_that_nothing_gives_is_a_fault() -> None:
    with pytest.raises(LookupError, match="bucket_id"):
        filled(Row, {"name": "n", "at": None})


def test_the_bound_on_overtaking_is_the_rank_and_the_longest_head_start() -> None:
    state = ServiceTotals(2, 2, 0, oldest={100: OldestItem(NOON, NOON), 0: OldestItem(NOON, NOON - timedelta(hours=1))})
    urgent, usual = oldest_rows(state, ServiceSettings(max_head_start=3600))
    assert (urgent.priority, urgent.since, urgent.overtaken_until) == (
        0,
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00Z",
    )
    assert (usual.priority, usual.overtaken_until) == (100, "2026-01-31T13:00:00Z")


def test_a_node_of_another_version_is_told_without_its_load() -> None:
    columns = {"node": "n", "boot": 1, "state": "live", "version": "9", "started_at": NOON, "lease_until": NOON}
    columns |= {"ended_at": None, "end_reason": None}
    told = node_report({**columns, "load": {"sessions": 3, "cpu": 0.5, "pending": {"dm_check": [2, 1]}}})
    assert (told.row.sessions, told.row.cpu, told.pending) == (3, 0.5, {"dm_check": PendingBuckets(2, 1)})
    assert node_report({**columns, "load": {"sessions": "many"}}).row.sessions == 0
