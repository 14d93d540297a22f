"""One volunteer: comes, checks as fast as the outside API lets it, is cut off, comes back, goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.client.backoff import Backoff
from coordinator.client.library import FLUSH_EVERY
from coordinator.config import Settings
from coordinator.store.claims import RELEASED
from tests.bench.simulation.member import Member, Outcome, Submit
from tests.bench.simulation.node import Session
from tests.bench.simulation.queue import Bucket

if TYPE_CHECKING:
    from tests.bench.simulation.day import Day

CONCURRENCY = 4
"""Items in check at once, the daemon's default: with fewer left than that it asks for the next bucket."""

_PING = Settings.model_fields["ping_interval"].default / 2 + Settings.model_fields["ping_timeout"].default
"""Seconds until a node notices a silent end, on average."""


class Allowance:
    """What the outside API still takes, many requests at a time; the limit is that of `client.x_api.Allowance`."""

    def __init__(self, requests: int, window: float) -> None:
        self._requests = requests
        self._window = window
        self._used = 0
        self.resets = -math.inf
        """When the API takes all of them again."""

    def left(self, now: float) -> int:
        """How many requests may be made."""
        return self._requests if now >= self.resets else self._requests - self._used

    def take(self, now: float, requests: int) -> None:
        """Count so many."""
        if now >= self.resets:
            self.resets, self._used = round(now + self._window, 6), 0
        self._used += requests


@dataclass(slots=True, eq=False)
class Holding:
    """A bucket in hand: `left` items to check, and `kept` results to submit."""

    bucket: Bucket
    claim: int
    session: Session
    left: int
    kept: int = 0
    flushing: bool = False


class Volunteer:
    """A client of the day."""

    __slots__ = (
        "_allowance",
        "_backoff",
        "_checking",
        "_epoch",
        "_hung",
        "_limited_until",
        "_pending",
        "_throughput",
        "_until",
        "day",
        "holdings",
        "member",
        "session",
    )

    def __init__(self, day: Day, member: Member) -> None:
        scenario, chance = day.scenario, day.chance
        self.day = day
        self.member = member
        self.session: Session | None = None
        self.holdings: list[Holding] = []
        self._throughput = chance.lognormvariate(math.log(scenario.speed), 1.0)
        self._allowance = Allowance(scenario.requests, scenario.window)
        self._backoff = Backoff(chance=chance.random)
        self._until = self._limited_until = -math.inf
        self._epoch = 0
        """Grows when the connection ends: what was planned before is void."""
        self._pending = 0
        self._checking = self._hung = False

    # Coming and going

    def come(self, until: float) -> None:
        """Begin a visit."""
        self._until = until
        self._connect()

    def _connect(self) -> None:
        day = self.day
        if self.session is not None:
            return  # a new visit began while the connection of the last one was tried again
        if day.clock.now >= self._until:
            self.day.checked_in_vain(sum(holding.kept for holding in self.holdings))
            self.holdings.clear()
            return
        self._epoch += 1
        self._pending = 0
        self._checking = self._hung = False
        node = day.some_node()
        session = self.session = Session(self, node, self.day.next_session())
        node.begin(session)
        if self.holdings:
            self._recollect(session)
        rate = day.scenario.cuts_an_hour / 3600
        cut = day.clock.now + day.chance.expovariate(rate) if rate else math.inf
        if cut < self._until:
            day.clock.at(cut, self._cut, self._epoch)
        else:
            day.clock.at(self._until, self._go, self._epoch)
        self._work()

    def _recollect(self, session: Session) -> None:
        named = {holding.bucket: holding for holding in self.holdings}
        self.holdings = []
        for bucket in self.day.store.recollect(self.member, session, list(named)):
            holding = named.pop(bucket, None)
            if holding is None:
                holding = Holding(bucket, bucket.claim, session, bucket.left)
            holding.claim, holding.session, holding.flushing = bucket.claim, session, False
            self.holdings.append(holding)
            if not holding.left:
                self._submit(holding)
        self.day.checked_in_vain(sum(holding.kept for holding in named.values()))

    def _cut(self, epoch: int) -> None:
        """The connection breaks; the client tries again and again until it is back."""
        if epoch != self._epoch:
            return
        day, chance = self.day, self.day.chance
        self._disconnect(chance.random() * 2 * _PING if chance.random() < 0.5 else 0.0)
        lasts = chance.lognormvariate(math.log(day.scenario.cut_for), 1.0)
        self._come_back(lasts)

    def crashed(self) -> None:
        """The node is gone; another one is found at the next try."""
        self._epoch += 1
        self.session = None
        self._come_back(0.0)

    def _come_back(self, after: float) -> None:
        waited = self._backoff.next()
        while waited < after:
            waited += self._backoff.next()
        self._backoff.reset()
        self.day.clock.after(waited, self._connect)

    def _disconnect(self, noticed_after: float) -> None:
        self._epoch += 1
        session, self.session = self.session, None
        if session is not None:
            self.day.clock.after(noticed_after, session.node.end, session)

    def _go(self, epoch: int) -> None:
        """The end of a visit: polite ones submit what is known, and let the rest go."""
        session = self.session
        if epoch != self._epoch or session is None:
            return
        if self.day.chance.random() < self.day.scenario.rude:
            self.day.checked_in_vain(sum(holding.kept for holding in self.holdings))
            self.holdings.clear()
            self._disconnect(0.0)
            return
        for holding in self.holdings:
            session.node.submit(session, Submit(self.member, holding.bucket, holding.claim, holding.kept, True))
            holding.kept = 0
        self.holdings.clear()
        session.node.withdraw(session)
        self._disconnect(1.0)

    def delivered(self, session: Session) -> Sequence[Bucket]:
        """What that session was given and the client has not lost since."""
        return [bucket for bucket in self.member.held if bucket.session is session]

    # Working: client/daemon.py

    def _ask(self, left: int = 0) -> None:
        """Ask for a bucket, unless more than `left` of those at hand are to be checked, or none can be."""
        session = self.session
        limited = self.day.clock.now < self._limited_until
        if session is None or self._pending or self._hung:
            return
        if limited:
            self.day.clock.at(self._limited_until, self._resume, self._epoch)
            return
        if sum(holding.left > 0 for holding in self.holdings) <= left:
            self._pending = 1
            session.node.ask(session, 1)

    def _ask_ahead(self, epoch: int) -> None:
        """The last bucket at hand will soon be done."""
        if epoch == self._epoch:
            self._ask(1)

    def granted(self, session: Session, bucket: Bucket) -> None:
        """A bucket is pushed."""
        if session is not self.session:
            return
        self._pending = 0
        day, chance = self.day, self.day.chance.random()
        if chance < day.scenario.give_back:
            # Whose it is is looked up first.
            day.store.ledger.note("small", 1)
            day.store.release_claim(bucket, bucket.claim, RELEASED)
            session.node.tell()
            session.node.work()
            self._ask()
            return
        self.holdings.append(Holding(bucket, bucket.claim, session, bucket.left))
        if chance > 1 - day.scenario.hang:
            self._hung = True
        self._work()

    def _work(self) -> None:
        """Check as many as can be before something else is to be done."""
        if self._checking or self._hung or self.session is None:
            return
        holding = next((one for one in self.holdings if one.left), None)
        if holding is None:
            self._ask()
            return
        now, clock = self.day.clock.now, self.day.clock
        may = self._allowance.left(now)
        if not may:
            resets = self._limited_until = self._allowance.resets
            self.day.store.report(self.member, resets - now)
            self._checking = True
            clock.at(resets, self._resume, self._epoch)
            return
        count = min(holding.left, may, max(1, int(self._throughput * FLUSH_EVERY)))
        self._allowance.take(now, count)
        self._checking = True
        if count == holding.left and holding is self.holdings[-1]:
            clock.after(max(0, count - CONCURRENCY) / self._throughput, self._ask_ahead, self._epoch)
        clock.after(count / self._throughput, self._checked, self._epoch, holding, count)

    def _resume(self, epoch: int) -> None:
        if epoch == self._epoch:
            self._checking = False
            self._work()

    def _checked(self, epoch: int, holding: Holding, count: int) -> None:
        if epoch != self._epoch:
            return
        self._checking = False
        if holding in self.holdings:
            holding.left -= count
            holding.kept += count
            if not holding.left:
                self._submit(holding)
            elif not holding.flushing:
                # Results wait for others, but not long.
                holding.flushing = True
                wait = max(0.0, FLUSH_EVERY - count / self._throughput)
                self.day.clock.after(wait, self._flush, epoch, holding)
        else:
            self.day.checked_in_vain(count)
        self._work()

    def _flush(self, epoch: int, holding: Holding) -> None:
        holding.flushing = False
        if epoch == self._epoch and holding.kept and holding in self.holdings:
            self._submit(holding)

    def _submit(self, holding: Holding) -> None:
        session = self.session
        assert session is not None
        submit = Submit(self.member, holding.bucket, holding.claim, holding.kept, not holding.left)
        holding.kept = 0
        session.node.submit(session, submit)

    def stored(self, session: Session, submit: Submit, outcome: Outcome | None) -> None:
        """The answer to a submit."""
        if outcome is None:
            self.day.checked_in_vain(submit.items)
        if outcome is None or outcome.closed:
            self.holdings = [one for one in self.holdings if one.claim != submit.claim]

    def lost(self, bucket: Bucket) -> None:
        """It was held too long; who was stuck with it begins anew."""
        for holding in self.holdings:
            if holding.bucket is bucket:
                self.day.checked_in_vain(holding.kept)
        self.holdings = [holding for holding in self.holdings if holding.bucket is not bucket]
        self._hung = False
        self._work()
