"""Figures that were measured, with their spread and their goal; as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from rich.table import Table


@dataclass(slots=True)
class Figure:
    """One figure: its value in each round, the goal, and what it is to be held against.

    `goal` is '>= 0.6' or '<= 3'; `base` tells the median of what was measured beside it in the same rounds.
    """

    name: str
    unit: str
    values: Sequence[float]
    goal: str = ""
    base: str = ""
    note: str = ""
    rounds: int = field(init=False)

    def __post_init__(self) -> None:
        self.values = [round(value, 6) for value in self.values]
        self.rounds = len(self.values)

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the goal; None without one."""
        if not self.goal:
            return None
        sign, _, number = self.goal.partition(" ")
        return self.median >= float(number) if sign == ">=" else self.median <= float(number)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "median": self.median, "met": self.met}


def table_of(figures: Sequence[Figure]) -> Table:
    """All figures, with goals missed marked."""
    table = Table("figure", "median", "min to max", "goal", "met", "beside it, same rounds")
    for figure in figures:
        met = {None: "", True: "yes", False: "[bold]no[/bold]"}[figure.met]
        spread = f"{short(min(figure.values))} to {short(max(figure.values))}"
        beside = "; ".join(part for part in (figure.base, figure.note) if part)
        table.add_row(figure.name, f"{short(figure.median)} {figure.unit}", spread, figure.goal, met, beside)
    return table


def short(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all is not above; of the values themselves, none in between."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
