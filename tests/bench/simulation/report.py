"""What a day showed, as figures and as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.simulation.costs import Costs, core_ms, grown
from tests.bench.simulation.day import LOW, NORMAL, URGENT, Day, bound
from tests.bench.simulation.ledger import BIN, Work, total

Figures = dict[str, Any]

_NAMES = {URGENT: "urgent", NORMAL: "normal", LOW: "low"}


def figures(day: Day, seconds: float, scale: int) -> Figures:
    """All that is told, for JSON; `seconds` is what playing took, `scale` the number of clients that is asked about."""
    scenario, costs = day.scenario, day.costs
    bins = day.store.ledger.bins
    whole = [one for one in bins if one]
    played = scenario.hours * 3600
    everything = total(whole)
    busiest = max(whole, key=lambda one: _ms(one, costs))
    peak_length = min(BIN, played)
    online = [sample.online for sample in day.samples]
    settled = sum(spread.weight for spread in day.store.settled_after.values())
    factor = scale / scenario.clients
    return {
        "scenario": {name: value for name, value in asdict(scenario).items() if name != "settings"},
        "costs": asdict(costs),
        "took_seconds": seconds,
        "events": day.clock.events,
        "online": {"mean": sum(online) / len(online), "max": max(online)},
        "sessions_begun": day.sessions,
        "items": {
            "added_per_second": day.added_per_second,
            "settled": settled,
            "checked_in_vain": day.in_vain,
            "quarantined": day.store.quarantined,
        },
        "ask_to_bucket_seconds": day.ask_to_bucket.told(),
        "waiting_to_settled_seconds": {
            _NAMES[priority]: spread.told() for priority, spread in sorted(day.store.settled_after.items())
        },
        "oldest_waiting_seconds": {
            name: max((sample.oldest.get(priority, 0.0) for sample in day.samples), default=0.0)
            for priority, name in _NAMES.items()
        },
        "overtaken_by_seconds": {"most": day.store.overtaken, "bound": bound(scenario)},
        "pool": {
            "ready_mean": sum(sample.ready for sample in day.samples) / len(day.samples),
            "ready_max": max(sample.ready for sample in day.samples),
            "held_max": max(sample.held for sample in day.samples),
            "waiting_max": max(sample.waiting for sample in day.samples),
            "buckets_made": day.store.sizes[0],
            "items_in_a_bucket": day.store.sizes[1] / max(1, day.store.sizes[0]),
        },
        "database": {"day": _load(everything, played, costs), "peak": _load(busiest, peak_length, costs)},
        "scaled": needs(busiest, peak_length, max(online), scenario.nodes, costs, factor, scale),
    }


def needs(
    peak: Mapping[str, Work], length: float, online: float, nodes: int, costs: Costs, factor: float, clients: int
) -> Figures:
    """What so many clients need at their peak, by growing the load of the busiest time."""
    buckets = peak["submit"].buckets / length * factor if "submit" in peak else 0.0
    by_sessions = online * factor / costs.sessions_per_node
    by_work = buckets * costs.node_ms_per_bucket / 1000 / costs.busy
    wanted = math.ceil(max(by_sessions, by_work))
    load = _load(grown(peak, factor, wanted / nodes), length, costs)
    return {
        "clients": clients,
        "online_at_peak": online * factor,
        "nodes": wanted,
        "nodes_for_sessions": by_sessions,
        "nodes_for_work": by_work,
        "database": load,
        "database_cores": load["cores"] / costs.busy,
    }


def _ms(work: Mapping[str, Work], costs: Costs) -> float:
    return sum(core_ms(kind, one, costs) for kind, one in work.items())


def _load(work: Mapping[str, Work], seconds: float, costs: Costs) -> Figures:
    kinds = {
        kind: {
            "calls_per_second": one.calls / seconds,
            "statements_per_second": one.statements / seconds,
            "rows_per_second": one.rows / seconds,
            "buckets_per_second": one.buckets / seconds,
            "cores": core_ms(kind, one, costs) / 1000 / seconds,
        }
        for kind, one in sorted(work.items(), key=lambda item: -core_ms(item[0], item[1], costs))
    }
    buckets = sum(one.buckets for kind, one in work.items() if kind == "submit")
    statements = sum(one.statements for one in work.values())
    return {
        "kinds": kinds,
        "statements": statements,
        "rows": sum(one.rows for one in work.values()),
        "statements_per_second": statements / seconds,
        "rows_per_second": sum(one.rows for one in work.values()) / seconds,
        "cores": sum(one["cores"] for one in kinds.values()),
        "statements_per_bucket": statements / max(1, buckets),
    }


def show(found: Figures, console: Console) -> None:
    """The same as tables."""
    scenario, online = found["scenario"], found["online"]
    console.print(
        f"{scenario['clients']:,} clients, {scenario['nodes']} nodes, {scenario['hours']:g} h, "
        f"seed {scenario['seed']}: "
        f"{found['events']:,} events in {found['took_seconds']:.0f} s; "
        f"{online['mean']:,.0f} connected on average, {online['max']:,} at most"
    )
    console.print(_waits(found))
    console.print(_stock(found))
    console.print(_database(found["database"]["peak"], "Database, busiest ten minutes"))
    scaled = found["scaled"]
    console.print(_database(scaled["database"], f"Database, busiest ten minutes of {scaled['clients']:,} clients"))
    day = found["database"]["day"]
    console.print(f"The whole day: {day['statements']:,.0f} statements, {day['rows']:,.0f} rows written.")
    console.print(
        f"{scaled['clients']:,} clients need {scaled['nodes']:.0f} nodes "
        f"({scaled['nodes_for_sessions']:.1f} for {scaled['online_at_peak']:,.0f} sessions, "
        f"{scaled['nodes_for_work']:.1f} cores for the work) and a database that does "
        f"{scaled['database']['statements_per_second']:,.0f} statements/s and "
        f"{scaled['database']['rows_per_second']:,.0f} rows/s: {scaled['database']['cores']:.1f} core-seconds a "
        f"second, {scaled['database_cores']:.0f} cores at {found['costs']['busy']:.0%}."
    )


def _waits(found: Figures) -> Table:
    table = Table("waiting times", "p50", "p90", "p99", "p99.9", "max", title="Waiting", title_justify="left")
    rows = {"ask → bucket": found["ask_to_bucket_seconds"]}
    rows |= {f"waiting → settled, {name}": told for name, told in found["waiting_to_settled_seconds"].items()}
    for name, told in rows.items():
        table.add_row(name, *(_time(told[column]) for column in ("p50", "p90", "p99", "p99.9", "max")))
    return table


def _stock(found: Figures) -> Table:
    pool, items = found["pool"], found["items"]
    rows: Sequence[tuple[str, str]] = [
        ("ready buckets, mean and most", f"{pool['ready_mean']:,.0f}, {pool['ready_max']:,}"),
        ("held buckets, most", f"{pool['held_max']:,}"),
        ("items in no bucket, most", f"{pool['waiting_max']:,}"),
        ("buckets made, items in each", f"{pool['buckets_made']:,}, {pool['items_in_a_bucket']:.1f}"),
        ("items added a second", f"{items['added_per_second']:,.0f}"),
        ("items settled, checked in vain", f"{items['settled']:,.0f}, {items['checked_in_vain']:,}"),
        ("items quarantined", f"{items['quarantined']:,}"),
        *((f"oldest waiting, {name}", _time(age)) for name, age in found["oldest_waiting_seconds"].items()),
        (
            "overtaken by younger ones, most and bound",
            f"{_time(found['overtaken_by_seconds']['most'])}, {_time(found['overtaken_by_seconds']['bound'])}",
        ),
    ]
    table = Table("pool and items", "", title="Stock", title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _database(load: Figures, title: str) -> Table:
    table = Table("kind", "calls/s", "statements/s", "rows/s", "cores", title=title, title_justify="left")
    for kind, one in load["kinds"].items():
        numbers = (one["calls_per_second"], one["statements_per_second"], one["rows_per_second"])
        table.add_row(kind, *(f"{number:,.1f}" for number in numbers), f"{one['cores']:.3f}")
    table.add_section()
    table.add_row(
        f"all ({load['statements_per_bucket']:.2f} statements a bucket)",
        "",
        f"{load['statements_per_second']:,.1f}",
        f"{load['rows_per_second']:,.1f}",
        f"{load['cores']:.3f}",
    )
    return table


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for length, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds * 1000:.1f} ms"
