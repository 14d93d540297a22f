"""The picture that `coordinator top` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from coordinator.wire import stats as wire

MAX_CLIENTS_SHOWN = 10
"""Clients that are shown, at most."""

EVENTS_SHOWN = 8
"""Events that are shown if the height is not known."""

SPARKLINE_LEVELS = "▁▂▃▄▅▆▇█"

SPARKLINE_SECONDS = 60

Snapshot = dict[str, Any]


class LatestSnapshots:
    """The latest snapshot of each topic."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.at = ""
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


def render_top(snapshots: LatestSnapshots, height: int | None = None) -> RenderableType:
    """Draw all topics; with a `height`, as many events as there is room for."""
    services, clients = snapshots.rows.get("services", []), snapshots.rows.get("clients", [])[:MAX_CLIENTS_SHOWN]
    nodes, events = snapshots.rows.get("nodes", []), snapshots.rows.get("events", [])
    taken = 14 + len(services) + len(clients) + len(nodes)
    most = EVENTS_SHOWN if height is None else max(3, height - taken)
    parts: list[RenderableType] = []
    if snapshots.overview is not None:
        parts += [_head(snapshots.node, snapshots.at, snapshots.overview), Text()]
    parts += [_services(services), Text(), _clients(clients), Text(), _nodes(nodes)]
    if snapshots.database is not None:
        parts += [Text(), _database(snapshots.database)]
    return Group(*parts, Text(), _events(events[:most]))


def _head(node: str, at: str, overview: wire.Overview) -> RenderableType:
    clients, demand = overview.clients, overview.demand
    grid = Table.grid(padding=(0, 2))
    rate = Text(f"{overview.items_per_second:,.0f} items/s  {overview.buckets_per_second:,.1f} buckets/s  ", "bold")
    rate.append(sparkline(overview.recent[-SPARKLINE_SECONDS:]), "green")
    grid.add_row("throughput", rate)
    grid.add_row(
        "left", Text(f"{_left(overview.items):,} of {overview.items.total:,}, done in {time_range(overview.eta)}")
    )
    unwell = f", {clients.watched} watched, {clients.flagged} flagged" if clients.watched or clients.flagged else ""
    grid.add_row("clients", Text(f"{clients.connected:,} connected, {clients.active:,} active{unwell}"))
    grid.add_row("demand", Text(f"{demand.pending:,} buckets wanted by {demand.clients:,} clients"))
    faults = Text(f"{overview.faults} in the last hour", "red" if overview.faults else "")
    grid.add_row("faults", faults)
    return Group(Text(f"coordinator, by {node} at {at[11:19]} UTC, {overview.nodes} nodes", "dim"), grid)


def _left(items: wire.Items) -> int:
    return items.waiting + items.ready + items.claimed + items.dead


def _services(rows: Sequence[wire.ServiceRow]) -> Table:
    table = _table("service", "", "settled", "waiting", "ready", "claimed", "dead", "quarantined", "items/s", "done in")
    for row in rows:
        items = row.items
        table.add_row(
            _text(row.service, "" if row.state == "active" else "dim"),
            ProgressBar(total=max(1, items.total), completed=items.settled, width=20),
            *(f"{count:,}" for count in (items.settled, items.waiting, items.ready, items.claimed, items.dead)),
            f"{items.quarantined:,}",
            f"{row.items_per_second:,.0f}",
            row.state if row.state != "active" else time_range(row.eta),
        )
    return table


def _clients(rows: Sequence[wire.ClientRow]) -> Table:
    table = _table("client", "name", "health", "held", "settled", "given back", "dead", "reason")
    styles = {"ok": "", "watched": "yellow", "flagged": "red"}
    for row in rows:
        table.add_row(
            _text(row.client_id, "" if row.connected else "dim"),
            _text(row.screen_name),
            Text(row.health, styles[row.health]),
            *(f"{count:,}" for count in (row.held, row.settled, row.given_back, row.dead)),
            _text(row.reason or ""),
        )
    return table


def _nodes(rows: Sequence[wire.NodeRow]) -> Table:
    table = _table("node", "state", "sessions", "items/s", "cores", "memory", "late by")
    for row in rows:
        table.add_row(
            _text(row.node),
            row.state,
            f"{row.sessions:,}",
            f"{row.items_per_second:,.0f}",
            f"{row.cpu:.2f}",
            f"{row.memory / 2**20:,.0f} MiB",
            f"{row.lag * 1000:,.0f} ms",
        )
    return table


def _database(load: wire.DatabaseLoad) -> Text:
    each = ""
    if load.statements_per_bucket is not None:
        each = f"; a bucket costs {load.statements_per_bucket:.2f} statements, {load.milliseconds_per_bucket:.1f} ms"
    return Text(
        f"database, by {load.node}: {load.statements_per_second:,.0f} statements/s, {load.rows_per_second:,.0f} rows/s,"
        f" busy {load.busy:.0%} of a connection{each}; waited {load.pool_waits:,} times for one of {load.pool_size}"
    )


def _events(rows: Sequence[wire.EventRow]) -> Table:
    table = _table("at", "event", "client", "service", "what")
    for row in rows:
        style = {"fault": "red", "dead": "yellow"}.get(row.kind, "")
        cells = (_text(value or "") for value in (row.client_id, row.service, row.text))
        table.add_row(row.at[11:19], Text(row.kind, style), *cells)
    return table


def _table(*names: str) -> Table:
    words = {"service", "", "client", "name", "health", "reason", "node", "state", "at", "event", "what"}
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        last = name in ("reason", "what")
        table.add_column(name, justify="left" if name in words else "right", no_wrap=True, ratio=1 if last else None)
    return table


def _text(value: str, style: str = "") -> Text:
    """Make a text of it that is no markup, without characters that would move the cursor."""
    return Text("".join(letter if letter.isprintable() else "�" for letter in value), style)


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
        return "-"
    if not eta.high:
        return "done"
    low, high = _time(eta.low), _time(eta.high)
    return low if low == high else f"{low} to {high}"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
