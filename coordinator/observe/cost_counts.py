"""Counts of what the account of cost charged and refused on this node, for `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable


class CostCounts:
    """By the type of the request: prices `charged`, and requests `refused` since too much had been charged."""

    def __init__(self, requests: Iterable[str]) -> None:
        self.charged: dict[str, float] = dict.fromkeys(requests, 0.0)
        self.refused: dict[str, int] = dict.fromkeys(self.charged, 0)
