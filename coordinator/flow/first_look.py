"""An ask until it is answered: its answer tells why the rest does not come, and its buckets come behind the answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic

from coordinator.flow.demand_queue import ClientState, DemandQueue, Ticket
from coordinator.flow.pool_view import PoolState, PoolView
from coordinator.flow.session_registry import Holder
from coordinator.model import Claimed, ServiceId

FIRST_LOOK_AT_MOST = 1.0
"""Seconds until an ask is answered, whether or not it is known by then that there is nothing: the database may be away
for long."""


TRUST_LEFT_FOR = 1.0
"""Seconds for which the buckets that a claim has left are taken to be there still."""


class FirstLook:
    """An ask of `count` buckets that is to be answered once it is known whether its buckets are at hand."""

    def __init__(self, holder: Holder, count: int) -> None:
        self.holder = holder
        self.gathered: list[Claimed] = []
        """The buckets that go out behind the answer."""
        self.gathers = True
        """Whether what is claimed for it is kept until it is answered."""
        self.count = count
        self._over = asyncio.Event()

    def gather(self, claimed: Claimed) -> None:
        """Keep a bucket until the ask is answered."""
        self.gathered.append(claimed)
        if len(self.gathered) >= self.count:
            self.end()

    def end(self) -> None:
        """Note that all is claimed that was at hand."""
        self._over.set()

    async def wait(self) -> None:
        """Wait until all is claimed that is at hand, `FIRST_LOOK_AT_MOST` at most."""
        try:
            async with asyncio.timeout(FIRST_LOOK_AT_MOST):
                await self._over.wait()
        except TimeoutError:
            pass


@dataclass(slots=True, eq=False)
class AskTicket(Ticket):
    """A ticket of an ask that waits."""

    look: FirstLook = field(kw_only=True)


class FirstLooks:
    """The asks of one service on this node that are not answered yet."""

    def __init__(self, service: ServiceId, queue: DemandQueue, pool: PoolView) -> None:
        self._service = service
        self._queue = queue
        self._pool = pool
        self._looks: set[FirstLook] = set()
        self._left = 0
        """How many ready buckets the last claim has left."""
        self._left_at = 0.0

    def begin(self, look: FirstLook, *, handing_out: bool, has_budget: bool) -> None:
        """Note an ask whose tickets are in the queue; it can be answered at once if nothing is to be found out.

        `has_budget`: the service may not hand out all that is ready.
        """
        if not (look.count and handing_out and self._will_be_served(look.holder)):
            look.end()
        elif not has_budget and self._is_at_hand(look.holder):
            look.gathers = False
            look.end()
        else:
            self._looks.add(look)

    def answered(self, look: FirstLook) -> None:
        """Forget an ask that has its answer; from now on its buckets are pushed."""
        look.gathers = False
        self._looks.discard(look)

    def end(self, *, of_set_aside: bool = False) -> None:
        """Note that there is nothing more for these asks: for all, or for those of clients that are set aside."""
        for look in self._looks:
            if not of_set_aside or self._queue.state_of(look.holder.client_id) is not ClientState.WAITING:
                look.end()

    def note_left(self, left: int) -> None:
        """Note how many ready buckets a claim has left."""
        self._left, self._left_at = left, monotonic()

    def _will_be_served(self, holder: Holder) -> bool:
        """Tell whether a claim is made for a session before all who wait are left to wait."""
        waits = self._queue.state_of(holder.client_id) is ClientState.WAITING
        return waits and self._pool.state is not PoolState.EMPTY

    def _is_at_hand(self, holder: Holder) -> bool:
        """Tell whether all that a session asked for is there for it, by what the last claims have shown."""
        identity = holder.identity
        wanted = sum(map(self._queue.pending, identity.sessions))
        return (
            self._queue.buckets <= self._left
            and monotonic() - self._left_at < TRUST_LEFT_FOR
            and identity.held_in(self._service) + wanted <= identity.moments_in(self._service).proven
        )
