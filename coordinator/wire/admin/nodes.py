"""Requests `node.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, Name, PageSize, Request

NodeState = Literal["live", "draining", "gone"]


class ListedNode(Struct):
    """One start of a node; `boot` is its number."""

    node: str
    boot: int
    state: NodeState
    lease_until: str
    version: str
    started_at: str


class NodeList(Request, tag="node.list"):
    """List the starts of nodes in order."""

    limit: PageSize = 100
    after: After | None = None


class NodePage(Ok, kw_only=True):
    """One page of starts of nodes."""

    rows: list[ListedNode]
    next: str | None


class NodeDrain(Request, tag="node.drain"):
    """Let a node (this one, unless named) hand out no more and end."""

    node: Name | None = None


class NodeDraining(Ok, kw_only=True):
    """The node that ends."""

    draining: str


ANSWERS: dict[type[Request], type[Answer]] = {
    NodeList: NodePage,
    NodeDrain: NodeDraining,
}

ADMIN_ONLY: frozenset[type[Request]] = frozenset({NodeDrain})
