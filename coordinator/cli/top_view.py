"""The picture that `coordinator top` shows: a head, and sections of which as many are shown as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from rich.text import Text

from coordinator.cli.tables import NOT_KNOWN, Column, draw_columns, wrapped
from coordinator.wire import stats as wire
from coordinator.wire.stats_clients import ClientRow
from coordinator.wording import counted

MAX_CLIENTS_SHOWN = 10
"""Clients that are shown, at most."""

EVENTS_SHOWN = 8
"""Events that are shown if the height is not known."""

LEAST_ROWS = 3
"""Rows of a long section that are worth beginning it at the lower edge."""

SPARKLINE_LEVELS = "▁▂▃▄▅▆▇█"

SPARKLINE_SECONDS = 60

_BAR_CELLS = 20

KEYS = "q quit · j k sections · space stands still"

Snapshot = dict[str, Any]


class LatestSnapshots:
    """The latest snapshot of each topic; `away` says since when the server is not reached, and why."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.at = ""
        self.away = ""
        self.overview: wire.Overview | None = None
        self.database: wire.DatabaseLoad | None = None
        self.rows: dict[str, list[Any]] = {}
        self.topics: set[str] = set()

    def take(self, snapshot: Snapshot) -> None:
        """Keep one snapshot; fields that a later server adds are ignored."""
        topic, data = str(snapshot["topic"]), snapshot["data"]
        self.at = str(snapshot["at"])
        self.topics.add(topic)
        if topic == "overview":
            self.overview = msgspec.convert(data, wire.Overview)
        elif topic == "database":
            self.database = msgspec.convert(data, wire.DatabaseLoad)
        else:
            kind: Any = wire.ROWS[topic]
            self.rows[topic] = [msgspec.convert(row, kind) for row in data["rows"]]


class Section(NamedTuple):
    """A part of the picture; those of its lines behind the first `least` may be left out."""

    name: str
    lines: list[Text]
    least: int


def sections_of(snapshots: LatestSnapshots, width: int) -> list[Section]:
    """Draw the sections in their order; one without rows is left out."""
    found: list[Section] = []
    for name, draw in (("services", _services), ("clients", _clients), ("nodes", _nodes)):
        rows = snapshots.rows.get(name, [])
        if rows:
            lines = _drawn(draw(rows), width, name)
            found.append(Section(name, lines, min(len(lines), 1 + LEAST_ROWS)))
    if snapshots.database is not None:
        lines = list(_database(snapshots.database, width))
        found.append(Section("database", lines, len(lines)))
    if events := snapshots.rows.get("events", []):
        lines = _drawn(_events(events), width, "events")
        found.append(Section("events", lines, min(len(lines), 1 + LEAST_ROWS)))
    return found


def render_top(
    snapshots: LatestSnapshots, width: int, height: int | None = None, first: int = 0, state: str = ""
) -> list[Text]:
    """Draw all, or with a `height` in lines the head and the sections from the `first` on that fit below it.

    The last line then names the sections that do not, and the keys; `state` stands before these.
    """
    head = _head(snapshots, width)
    sections = sections_of(snapshots, width)
    if height is None:
        parts = [
            section.lines[: 1 + EVENTS_SHOWN] if section.name == "events" else section.lines for section in sections
        ]
        return [line for lines in (head, *parts) for line in (*lines, Text())][:-1]

    lines = head
    room = height - len(head) - 1
    left = sections[min(first, max(0, len(sections) - 1)) :]
    while left and room > left[0].least:
        section = left.pop(0)
        shown = section.lines[: room - 1]
        lines += [Text(), *shown]
        room -= 1 + len(shown)

    lines += [Text()] * room
    below = f"+ {counted(len(left), 'section')} below: {', '.join(section.name for section in left)} · " if left else ""
    foot = Text(f"{state}{below}{KEYS}", "dim")
    foot.truncate(width)
    return [*lines[: height - 1], foot]


def _head(snapshots: LatestSnapshots, width: int) -> list[Text]:
    overview = snapshots.overview
    if overview is None:
        return [Text(snapshots.away, "red")] if snapshots.away else []

    clients, demand = overview.clients, overview.demand
    rate = Text(f"{overview.items_per_second:,.0f} items/s  {overview.buckets_per_second:,.1f} buckets/s  ", "bold")
    rate.append(sparkline(overview.recent[-SPARKLINE_SECONDS:]), "green")
    unwell = f", {clients.watched} watched, {clients.flagged} flagged" if clients.watched or clients.flagged else ""
    rows = {
        "throughput": rate,
        "left": Text(
            f"{_left(overview.items):,} of {overview.items.total:,}, done in {time_range(overview.eta)}"
        ),
        "clients": Text(f"{clients.connected:,} connected, {clients.active:,} active{unwell}"),
        "demand": Text(f"{counted(demand.pending, 'bucket')} wanted by {counted(demand.clients, 'client')}"),
        "faults": Text(f"{overview.faults} in the last hour", "red" if overview.faults else ""),
    }  # fmt: skip

    title = f"coordinator, by {snapshots.node} at {snapshots.at[11:19]} UTC, {counted(overview.nodes, 'node')}"
    lines = [Text(snapshots.away, "red") if snapshots.away else _text(title, "dim")]
    lines += [Text(f"{name:<12}") + text for name, text in rows.items()]
    for line in lines:
        line.truncate(width)
    return lines


def _left(items: wire.Items) -> int:
    return items.waiting + items.ready + items.claimed + items.dead


def _services(rows: Sequence[wire.ServiceRow]) -> list[Column]:
    counts = {
        name: [f"{getattr(row.items, name):,}" for row in rows]
        for name in ("settled", "waiting", "ready", "claimed", "dead", "quarantined")
    }
    bars = [_bar(row.items.settled, row.items.total) for row in rows]
    return [
        _id("service", [row.service for row in rows], ["" if row.state == "active" else "dim" for row in rows]),
        Column("progress", bars, "whole", right=False, styles=["green"] * len(rows)),
        *(_figures(name, cells) for name, cells in counts.items()),
        _figures("items/s", [f"{row.items_per_second:,.0f}" for row in rows]),
        _figures("done in", [row.state if row.state != "active" else time_range(row.eta) for row in rows]),
    ]


def _clients(rows: Sequence[ClientRow]) -> list[Column]:
    rows = rows[:MAX_CLIENTS_SHOWN]
    styles = {"ok": "", "watched": "yellow", "flagged": "red"}
    return [
        _id("client", [row.client_id for row in rows], ["" if row.connected else "dim" for row in rows]),
        _words("name", [row.screen_name for row in rows]),
        Column("health", [row.health for row in rows], "whole", right=False, styles=[styles[r.health] for r in rows]),
        *(
            _figures(name.replace("_", " "), [f"{getattr(row, name):,}" for row in rows])
            for name in ("held", "settled", "given_back", "dead")
        ),
        _words("reason", [row.reason or "" for row in rows]),
    ]


def _nodes(rows: Sequence[wire.NodeRow]) -> list[Column]:
    return [
        _id("node", [row.node for row in rows]),
        _id("state", [row.state for row in rows]),
        _figures("sessions", [f"{row.sessions:,}" for row in rows]),
        _figures("items/s", [f"{row.items_per_second:,.0f}" for row in rows]),
        _figures("cores", [f"{row.cpu:.2f}" for row in rows]),
        _figures("memory", [f"{row.memory / 2**20:,.0f} MiB" for row in rows]),
        _figures("late by", [f"{row.lag * 1000:,.0f} ms" for row in rows]),
    ]


def _database(load: wire.DatabaseLoad, width: int) -> Sequence[Text]:
    each = ""
    if load.statements_per_bucket is not None:
        each = f"; a bucket costs {load.statements_per_bucket:.2f} statements, {load.milliseconds_per_bucket:.1f} ms"
    sentence = _inert(
        f"database, by {load.node}: {load.statements_per_second:,.0f} statements/s, {load.rows_per_second:,.0f} rows/s,"
        f" busy {load.busy:.0%} of a connection{each}; waited {load.pool_waits:,} times for one of {load.pool_size}"
    )
    return [Text(line) for line in wrapped(sentence, width, 0)]


def _events(rows: Sequence[wire.EventRow]) -> list[Column]:
    kinds = {"fault": "red", "dead": "yellow"}
    return [
        _id("at", [row.at[11:19] for row in rows]),
        Column("event", [row.kind for row in rows], "whole", right=False, styles=[kinds.get(r.kind, "") for r in rows]),
        _id("client", [row.client_id or "" for row in rows]),
        _id("service", [row.service or "" for row in rows]),
        _words("what", [row.text for row in rows]),
    ]


_ORDERS = {
    "services": ("service", "settled", "waiting", "items/s", "done in", "progress", "ready", "claimed", "quarantined"),
    "clients": ("client", "health", "held", "settled", "given back", "dead", "reason", "name"),
    "nodes": ("node", "state", "sessions", "items/s", "cores", "memory", "late by"),
    "events": ("at", "event", "what", "client", "service"),
}
"""The columns of each section, the most important ones first."""


def _drawn(columns: list[Column], width: int, name: str) -> list[Text]:
    return draw_columns(columns, width, order=_ORDERS[name])[0]


def _id(name: str, cells: Sequence[str], styles: Sequence[str] = ()) -> Column:
    return Column(name, [_inert(cell) for cell in cells], "middle", right=False, styles=styles)


def _words(name: str, cells: Sequence[str]) -> Column:
    return Column(name, [_inert(cell) for cell in cells], "end", right=False)


def _figures(name: str, cells: Sequence[str]) -> Column:
    return Column(name, cells, "whole", right=True)


def _text(value: str, style: str = "") -> Text:
    return Text(_inert(value), style)


def _inert(value: str) -> str:
    """Replace characters that would move the cursor."""
    return "".join(letter if letter.isprintable() else "�" for letter in value)


def _bar(done: int, total: int) -> str:
    cells = done * _BAR_CELLS // max(1, total)
    return "━" * cells + "╌" * (_BAR_CELLS - cells)


def sparkline(numbers: Sequence[int]) -> str:
    """Draw numbers as a line of small columns; the largest number is the highest column."""
    most = max(numbers, default=0)
    if not most:
        return ""
    return "".join(
        SPARKLINE_LEVELS[min(number * len(SPARKLINE_LEVELS) // most, len(SPARKLINE_LEVELS) - 1)] for number in numbers
    )


def time_range(eta: wire.Eta | None) -> str:
    """Write the range of an estimate, in words."""
    if eta is None:
        return NOT_KNOWN
    if not eta.high:
        return "done"
    low, high = _time(eta.low), _time(eta.high)
    return low if low == high else f"{low} to {high}"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
