"""The progress of all work, as `GET /v1/progress.json` and the table `progress` tell it to everybody.

protocol.md, "Progress for everybody"
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coordinator.wire.stats_rows import Eta


class ProgressOfService(Struct):
    """The progress of one service; `percent` is 100 only where all is done; `volunteers` worked there lately."""

    service: str
    title: str
    state: Literal["active", "paused"]
    settled: int
    total: int
    percent: float
    items_per_second: float
    eta: Eta | None
    volunteers: int


class Contributor(Struct):
    """A volunteer who has just finished a bucket: with how many items, of which service, and when."""

    screen_name: str
    service: str
    items: int
    at: str


class DayLeader(Struct):
    """A volunteer among those who settled most today."""

    place: int
    screen_name: str
    settled: int


class Progress(Struct):
    """The progress of all services that were not revoked, and who contributed of late.

    `project` is the operator's name for all of it, perhaps empty; `at` when this was computed; `volunteers` those who
    worked in the last minutes.  Volunteers who are flagged are named nowhere here.
    """

    project: str
    at: str
    settled: int
    total: int
    percent: float
    items_per_second: float
    eta: Eta | None
    volunteers: int
    services: list[ProgressOfService]
    contributors: list[Contributor]
    leaders: list[DayLeader]
