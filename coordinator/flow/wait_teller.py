"""Tells the sessions of this node why nothing comes of one service, whenever that changes.  protocol.md, "waiting"

It only looks: whatever fails here, buckets go out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import structlog

from coordinator.errors import Unavailable
from coordinator.flow.core import Core
from coordinator.flow.demand_queue import DemandQueue
from coordinator.flow.session_registry import Holder
from coordinator.flow.wait_reasons import wait_for_all, wait_of_client
from coordinator.model import ClientId, Demand, ServiceId, SessionId, Wait, WaitReason
from coordinator.store import waits
from coordinator.wire.client import WaitChanged
from coordinator.wire.paging import time_text_or_none

log = structlog.get_logger()

TELL_INTERVAL = 1.0
"""Seconds between two pushes to a session about one service, at least."""

GATHER_FOR = 0.05
"""Seconds for which those go first that may be served by what was heard: they need not be told anything."""

LOOK_AT_ALL_AFTER = 60.0
"""Seconds after which all who wait are looked at though nothing was heard, in case a signal was lost."""

CLIENTS_A_LOOK = 500
"""Clients that one statement looks at, at most."""

EndOfWait = Literal["deactivated", "served"]
"""How a wait ends without a bucket, and not by the session itself."""

UNTIL_CHANGES_BY = 1.0
"""Seconds by which a wait must end sooner or later in order to be told anew."""


@dataclass(frozen=True, slots=True)
class _Told:
    """The last that a session was told, and when by a push, in seconds of a clock that never goes back."""

    wait: Wait
    pushed_at: float = float("-inf")


class WaitTeller:
    """Knows what each session that waits for one service was told, and tells it what has changed."""

    def __init__(self, service: ServiceId, core: Core, queue: DemandQueue) -> None:
        self._service = service
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._state = core.state
        self._queue = queue

        self._told: dict[SessionId, _Told] = {}
        self._answering: set[SessionId] = set()
        """Sessions that are just being told by the answer to their ask."""
        self._over: list[tuple[Holder, EndOfWait, str]] = []
        """Sessions whose wait is over, though nothing has come."""
        self._to_look: set[ClientId] = set()
        self._look_at_all = False
        self._found_empty: WaitReason | None = None
        self._changed = asyncio.Event()

    # What is heard

    def look(self, client: ClientId) -> None:
        """Look whether a client waits for another reason than it was told."""
        self._to_look.add(client)
        self._changed.set()

    def look_at_all(self) -> None:
        """Look at all who wait: something has changed for all of them."""
        self._look_at_all = True
        self._changed.set()

    def found_empty(self, reason: WaitReason) -> None:
        """Note that nothing is handed out, for that reason; those that were told so need not hear it again."""
        self._found_empty = reason
        self._changed.set()

    def over(self, holder: Holder, reason: EndOfWait, text: str) -> None:
        """Note that what a session waited for was dropped, not by itself."""
        self._over.append((holder, reason, text))
        self._changed.set()

    # The answer to an ask

    def begin_answer(self, holder: Holder) -> None:
        """Leave it to the answer to an ask to tell a session; `end_answer` follows."""
        self._answering.add(holder.session_id)

    def end_answer(self, holder: Holder, wait: Wait | None) -> None:
        """Note what the answer tells a session; None if nothing."""
        self._answering.discard(holder.session_id)
        if wait is None:
            self._told.pop(holder.session_id, None)
        else:
            self._told[holder.session_id] = _Told(wait)

    def reasons(self) -> dict[str, int]:
        """Count the buckets that sessions wait for by the reason that each session was told last."""
        counts: Counter[str] = Counter()
        for session in self._queue.sessions:
            if (told := self._told.get(session)) is not None:
                counts[told.wait.reason] += self._queue.pending(session)
        return dict(counts)

    def sessions(self) -> Counter[str]:
        """Count the sessions that wait by the reason that each was told last."""
        told = (self._told.get(session) for session in self._queue.sessions)
        return Counter(one.wait.reason for one in told if one is not None)

    async def wait_of(self, holder: Holder) -> Wait | None:
        """Return why a session waits; None if something is ready for it, or if the database is away."""
        try:
            return (await self._waits([holder])).get(holder.session_id)
        except Unavailable:
            return None

    # Pushes

    def tell_drain(self, holder: Holder) -> None:
        """Tell a session at once that its node drains: it may be closed before `run` comes to it."""
        wait = wait_for_all(self._catalogue.by_id(self._service).service, draining=True)
        told = self._told.get(holder.session_id)
        if told is None or monotonic() - told.pushed_at >= TELL_INTERVAL:
            self._tell_one(holder, wait)

    async def run(self) -> None:
        """Tell what has changed, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_AT_ALL_AFTER):
                    await self._changed.wait()
            except TimeoutError:
                self._look_at_all = True
            await asyncio.sleep(GATHER_FOR)
            self._changed.clear()

            try:
                await self._tell()
            except Unavailable:
                self.look_at_all()
            except Exception:
                log.exception("clients are not told why they wait", service=self._catalogue.name_of(self._service))
            await asyncio.sleep(TELL_INTERVAL)

    async def _tell(self) -> None:
        """Push to all of whom something was heard what they were not told yet."""
        over, self._over = self._over, []
        for holder, reason, text in over:
            if not self._queue.pending(holder.session_id):  # else it has asked again
                self._push(holder, reason, text, None)

        waiting = [self._registry.sessions[session] for session in self._queue.sessions if self._is_here(session)]
        self._told = {
            holder.session_id: told for holder in waiting if (told := self._told.get(holder.session_id)) is not None
        }

        chosen = [holder for holder in waiting if self._is_to_be_looked_at(holder)]
        self._to_look, self._look_at_all, self._found_empty = set(), False, None
        for start in range(0, len(chosen), CLIENTS_A_LOOK):
            part = chosen[start : start + CLIENTS_A_LOOK]
            found = await self._waits(part)
            for holder in part:
                self._tell_one(holder, found.get(holder.session_id))

    def _is_here(self, session: SessionId) -> bool:
        return session in self._registry.sessions

    def _is_to_be_looked_at(self, holder: Holder) -> bool:
        if self._look_at_all or holder.client_id in self._to_look:
            return True
        told = self._told.get(holder.session_id)
        return self._found_empty is not None and (told is None or told.wait.reason != self._found_empty)

    def _tell_one(self, holder: Holder, wait: Wait | None) -> None:
        session = holder.session_id
        if wait is None or session in self._answering or not self._queue.pending(session):
            return  # it was, or is being served
        told = self._told.get(session)
        if told is not None and _same(told.wait, wait):
            return
        self._told[session] = _Told(wait, monotonic())
        self._push(holder, wait.reason, wait.text, wait)

    def _push(self, holder: Holder, reason: WaitReason | Literal["served"], text: str, wait: Wait | None) -> None:
        name = self._catalogue.name_of(self._service)
        if name is not None:
            until = time_text_or_none(None if wait is None else wait.until)
            holder.push(WaitChanged(service=name, reason=reason, text=text, until=until))

    # The look

    async def _waits(self, holders: Sequence[Holder]) -> Mapping[SessionId, Wait]:
        """Find why these sessions wait; those are left out for which something is ready."""
        service = self._catalogue.by_id(self._service).service
        for_all = wait_for_all(service, draining=self._state.draining)
        if for_all is not None:
            return {holder.session_id: for_all for holder in holders}

        demands = [Demand(holder.client_id, holder.session_id, holder.address) for holder in holders]
        async with self._database.connection() as db:
            found = await waits.find_waits(db, self._service, demands, service.settings)
        return {
            holder.session_id: wait
            for holder in holders
            if (facts := found.get(holder.client_id)) is not None
            and (wait := wait_of_client(service, facts, holder.agent)) is not None
        }


def _same(told: Wait, wait: Wait) -> bool:
    """Tell whether two reasons are the same, but for the words."""
    if told.reason != wait.reason:
        return False
    if told.until is None or wait.until is None:
        return told.until is wait.until
    return abs((told.until - wait.until).total_seconds()) < UNTIL_CHANGES_BY
