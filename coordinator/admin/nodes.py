"""The requests `node.…`: list, drain.  protocol.md, "node.list" """

from __future__ import annotations

from coordinator.admin import Steps
from coordinator.errors import NotFound
from coordinator.flow.core import Core
from coordinator.flow.signal_types import NodeDrains
from coordinator.stats.rows import filled
from coordinator.store import nodes as store
from coordinator.wire.admin import nodes as wire
from coordinator.wire.paging import number


class NodeRequests:
    """Carries out the requests `node.…`."""

    def __init__(self, core: Core) -> None:
        self._node = core.settings.node_name
        self._database = core.database
        self._signals = core.signals

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.NodeList: self.list,
            wire.NodeDrain: self.drain,
        }

    async def list(self, request: wire.NodeList) -> wire.NodePage:
        """List the starts of nodes in order.

        Raises:
            BadMessage: `after` is none.
        """
        after = 0 if request.after is None else number(request.after)
        async with self._database.connection() as db:
            found = await store.page(db, after, request.limit)
        rows = [filled(wire.ListedNode, row) for row in found]
        return wire.NodePage(rows=rows, next=str(rows[-1].boot) if len(rows) == request.limit else None)

    async def drain(self, request: wire.NodeDrain) -> wire.NodeDraining:
        """Let a node hand out no more, and end.

        Raises:
            NotFound: no node of that name runs.
        """
        name = request.node or self._node
        async with self._database.connection() as db:
            live = await store.is_live(db, name)
        if not live:
            raise NotFound(f"No node {name!r} runs.")
        self._signals.tell(NodeDrains(name))
        return wire.NodeDraining(draining=name)
