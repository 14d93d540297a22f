"""A node says that it carries what the README's table says."""

from __future__ import annotations

import re
from pathlib import Path

from coordinator.config import Settings
from coordinator.stats.capacity import MEASURED_CAPACITY

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## What one node carries\n", 1)[1].split("\n## ", 1)[0]


def row(start: str) -> tuple[str, str]:
    """The figure and what sets its limit, of the one row whose first cell begins so."""
    ((figure, limit),) = re.findall(rf"^\| {re.escape(start)}[^|]*\| ([^|]*) \| ([^|]*) \|$", SECTION, re.MULTILINE)
    return figure, limit


def as_a_cell(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].removesuffix(".")


def test_the_machine() -> None:
    in_words = MEASURED_CAPACITY.machine.replace("2 cores", "two cores")
    assert f"On {in_words}d (medians of " in " ".join(SECTION.split())


def test_sessions() -> None:
    figure, limit = row("idle sessions")
    memory = f"{MEASURED_CAPACITY.memory_per_session / 1024:.1f} KiB"
    assert figure.startswith(f"{memory} each, ")
    assert figure.endswith(f"; a node takes {MEASURED_CAPACITY.sessions:,} (`--max-sessions`)")
    assert Settings.model_fields["max_sessions"].default == MEASURED_CAPACITY.sessions
    assert MEASURED_CAPACITY.limited_by.sessions.startswith(f"{limit.capitalize()}: {memory} for each ")


def test_asks_and_items_of_buckets_that_are_ready() -> None:
    figure, limit = row("items settled, ")
    items, asks = f"{MEASURED_CAPACITY.items_per_second:,}", f"{MEASURED_CAPACITY.asks_per_second:,}"
    assert figure.endswith(f"; {items} with 200 clients, which is {asks} asks and as many submits")
    assert as_a_cell(MEASURED_CAPACITY.limited_by.items_per_second) == limit
    assert as_a_cell(MEASURED_CAPACITY.limited_by.asks_per_second) == limit


def test_items_of_buckets_that_are_made_meanwhile() -> None:
    figure, limit = row("the same while all these buckets are made, too")
    assert figure.startswith(f"{MEASURED_CAPACITY.items_per_second_made:,} a second, ")
    assert as_a_cell(MEASURED_CAPACITY.limited_by.items_per_second_made) == limit
