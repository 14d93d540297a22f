"""Rows of the tables of the stats channel that are of the work: items, buckets, claims.  protocol.md, "Tables" """

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coordinator.model import ItemState, JsonObject
from coordinator.wire.frames import Discovered


class ItemPlace(Struct):
    """Where an item is in one service.

    `since` and `priority` are of one that waits (a bucket has a priority too), `since`, `attempts` and the `reason` in
    words of one that was set aside.
    """

    service: str
    state: ItemState
    since: str | None
    priority: int | None
    attempts: int | None
    reason: str | None


class ItemRow(Struct):
    """An item of the catalogue, and where it is in each service that has it."""

    item: int
    key: str
    attributes: JsonObject
    found: Discovered | None
    services: list[ItemPlace]


class BucketRow(Struct):
    """An open bucket; `age` is the seconds since it was claimed, or last settled an item, or marked dead."""

    bucket_id: str
    service: str
    state: str
    client_id: str | None
    claim: int
    attempts: int
    remaining: int
    age: float | None


class ClaimRow(Struct):
    """One handing-out of a bucket: of `given` items, of which it `settled` so many; `ended` is null while it is open.

    Not `valid`: its results were taken back.
    """

    claim: int
    bucket_id: str
    service: str
    client_id: str
    begun_at: str
    ended_at: str | None
    ended: str | None
    given: int
    settled: int
    valid: bool


class ServiceSchemas(Struct):
    """JSON Schemas of a service's results (without `item`) and settings, and the settings that are in force."""

    service: str
    result_schema: JsonObject
    settings_schema: JsonObject
    settings: JsonObject


class HistoryRow(Struct):
    """One second, minute or hour of one service, from `at` on."""

    at: str
    service: str
    settled: int
    buckets: int
    given_back: int
    dead: int
    disconnects: int
    bad_submits: int


class KindRow(Struct):
    """The results of one kind in one minute or hour of one service, from `at` on."""

    at: str
    label: str
    results: int


class ShareRow(Struct):
    """The results of one kind that came in one service since a time."""

    service: str
    label: str
    results: int


class Neighbour(Struct):
    """An account that follows another, or is `followed` by it, or both; `item` if it is one."""

    key: str
    item: int | None
    follows: bool
    followed: bool


class Neighbourhood(Struct):
    """The follow graph around the account of an item; of many `neighbours`, some, mutual ones first.

    Not `complete`: it has more than were counted.
    """

    item: int
    followers: int
    following: int
    mutual: int
    complete: bool
    neighbours: list[Neighbour]


class AgeRow(Struct):
    """The items of one service that have waited for at least `since` seconds, and less than `until` (null: any)."""

    since: int
    until: int | None
    items: int


class Eta(Struct):
    """The time until nothing is left to do: seconds from now, of time in which work goes on.

    From the slowest and the fastest of the last active minutes; see the `statistics` of the server.
    """

    low: float
    high: float


class LeaderRow(Struct):
    """A volunteer's place by items settled; `flagged` in some service, so that its results may be wrong.

    Those who settled as much share a place.
    """

    place: int
    client_id: str
    screen_name: str
    settled: int
    flagged: bool


class StandingRow(Struct):
    """One volunteer in one span: its `place` (null: it settled nothing) among so many `volunteers`.

    `settled` are its items, `total` those of all.
    """

    span: Literal["day", "week", "month", "all"]
    place: int | None
    volunteers: int
    settled: int
    total: int
