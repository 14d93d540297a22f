"""The store on a simulated clock: what each step changes, by the same rules, and what it asks of the database.

What decides how large the pool is, what a run takes and leaves behind, how a broken bucket is cut and what a priority
is worth is the project's own code.  What only SQL decides (who may be served, what a give-back costs, how a claim
ends) is said here again, and `tests/bench/test_simulation.py` holds every step of it against the real statements.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from random import Random

from coordinator.flow.bucket_builder import BuildReason, build_size, head_start, pool_target
from coordinator.flow.bucket_splitter import part_size
from coordinator.model import ServiceSettings
from coordinator.store.building import MAX_READY, Pool
from coordinator.store.claims import CRASHED, CUT_OFF, DEAD, GIVEN_UP, MAX_ATTEMPTS, UNDELIVERED, EndReason
from tests.bench.simulation.clock import Clock
from tests.bench.simulation.ledger import Ledger, Spread
from tests.bench.simulation.member import Demand, Freed, Member, Outcome, Submit, refused_for, waits_for
from tests.bench.simulation.queue import Batch, Bucket, Ready, Waiting, stay_behind

QUANTILES = 4
"""By so many the ages of a bucket's items are told; it is a fair draw of its run."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def moment(seconds: float) -> datetime:
    """A time of the simulated clock as the project's rules take it."""
    return _EPOCH + timedelta(seconds=seconds)


class Store:
    """One service's rows."""

    def __init__(self, clock: Clock, settings: ServiceSettings, chance: Random, recollect_window: float) -> None:
        self.clock = clock
        self.settings = settings
        self.recollect_window = recollect_window
        self.ledger = Ledger()
        self.waiting = Waiting()
        self.ready = Ready(chance)
        self.members = self.held = 0
        self.quarantined = 0
        self.settled_after: defaultdict[int, Spread] = defaultdict(Spread)
        """Seconds from waiting to settled, by priority."""
        self.overtaken = 0.0
        """The most seconds by which something handed out was younger than the rank of something that was not."""
        self.sizes = [0, 0]
        """How many buckets were made, and of how many items together."""
        self._claims = 0
        self._claimed: list[tuple[float, int, Bucket]] = []
        self._dead: list[tuple[float, int, Bucket]] = []
        self._split: list[tuple[float, int, Bucket]] = []
        self._done: deque[Bucket] = deque()
        self._order = 0

    @property
    def set_aside(self) -> int:
        """Items in broken buckets that are not offered until they are cut up."""
        broken = {id(bucket): bucket for split_at, _, bucket in self._split if bucket.split_at == split_at}
        return sum(bucket.left for bucket in broken.values() if bucket.state == "ready")

    # What comes in

    def join(self, client_id: str) -> Member:
        """A client that may ask."""
        self.members += 1
        return Member(client_id)

    def add(self, priority: int, count: int) -> None:
        """New items, in one `item.add` for each thousand."""
        now = self.clock.now
        self.waiting.add(Batch(now - head_start(priority, self.settings.max_head_start), now, priority, count))
        calls = -(-count // 1000)
        # The statement, and waiting for the disk.
        self.ledger.note("add", 2 * calls, 3 * count + 2 * calls, items=count)
        if priority < 100:
            self.make(wait_for_lock=True)

    # The builder

    def make(self, reason: BuildReason = BuildReason.AHEAD, *, wait_for_lock: bool = False) -> int:
        """One run; returns how many buckets it made."""
        target = pool_target(self.members, self.settings)
        front, back = self.waiting.front, self.ready.back
        pool = Pool(
            min(self.members, MAX_READY),
            min(self.ready.size, target),
            None if back is None else moment(back),
            None if front is None else moment(front),
            min(self.waiting.items, self.settings.bucket_size),
        )
        look = self.ledger.note("look", 4 if wait_for_lock else 3)
        look.members += pool.workers
        look.ready += pool.ready
        run = build_size(pool, target, self.settings, reason)
        return 0 if run is None else self._run(run.limit, short=run.short)

    def _run(self, limit: int, *, short: bool) -> int:
        groups: defaultdict[int, list[Batch]] = defaultdict(list)
        for batch in self.waiting.take(limit):
            groups[batch.priority].append(batch)
        size = self.settings.bucket_size
        counts = [(group[0].rank, sum(batch.count for batch in group)) for group in groups.values()]
        behind = stay_behind([(moment(rank), count) for rank, count in counts], size, short=short)
        made = rest = items = 0
        for group, (rank, count), left in zip(groups.values(), counts, behind, strict=True):
            items += count
            rest += left
            since = _quantiles(group, count - left)
            for at in range(0, count - left, size):
                self._put(Bucket(rank, since, group[0].priority, min(size, count - left - at)))
                made += 1
            self._put_back(group, left)
        self.sizes[0] += made
        self.sizes[1] += items - rest
        # The items that no longer wait, counted once by a trigger; and two rows for each bucket.
        self.ledger.note("make", 1, items - rest + 1 + 2 * made, buckets=made, items=items - rest)
        return made

    def _put(self, bucket: Bucket) -> None:
        self.ready.add(bucket)

    def _put_back(self, group: list[Batch], left: int) -> None:
        while left:
            youngest = group.pop()
            count = min(left, youngest.count)
            self.waiting.add(Batch(youngest.rank, youngest.since, youngest.priority, count))
            left -= count

    # Claims

    def claim(self, demands: Sequence[Demand]) -> list[Bucket | None]:
        """One claim statement; what each demand was served with."""
        if not self.ready.size:  # then it does not matter who may be served
            self.ledger.note("claim", 1)
            return self._none(demands)
        now = self.clock.now
        fit = [n for n, one in enumerate(demands) if not one.member.wait(now) and not one.member.will_not(now)]
        drawn = self._draw(demands, fit)
        served: list[Bucket | None] = [None] * len(demands)
        for n, bucket in zip(fit, drawn, strict=False):
            served[n] = self._take(bucket, demands[n])
        self.ledger.note("claim", 1, 2 * len(drawn), buckets=len(drawn)).ready += self.ready.size
        if drawn:
            self._note_order(drawn)
        return served

    def _none(self, demands: Sequence[Demand]) -> list[Bucket | None]:
        return [None] * len(demands)

    def _draw(self, demands: Sequence[Demand], fit: Sequence[int]) -> list[Bucket]:
        found = (self.ready.draw() for _ in fit)
        return [bucket for bucket in found if bucket is not None]

    def waits(self, members: Sequence[Member]) -> list[tuple[float | None, bool]]:
        """Why each was not served: the seconds that it has to wait, and whether it refuses some buckets."""
        now = self.clock.now
        self.ledger.note("small", 1)
        return [(one.wait(now) or None, bool(one.will_not(now))) for one in members]

    def claim_choosy(self, demand: Demand) -> Bucket | None:
        """The front but for what this client gave back lately."""
        now = self.clock.now
        may = not demand.member.wait(now)
        bucket = self._draw_for(demand, demand.member.will_not(now)) if may else None
        self.ledger.note("claim", 1, 0 if bucket is None else 2, buckets=bucket is not None).ready += self.ready.size
        return None if bucket is None else self._take(bucket, demand)

    def _draw_for(self, demand: Demand, refused: Sequence[Bucket]) -> Bucket | None:
        return self.ready.draw(refused=refused)

    def _take(self, bucket: Bucket, demand: Demand) -> Bucket:
        self._claims += 1
        self.held += 1
        bucket.state, bucket.claim = "claimed", self._claims
        bucket.holder, bucket.session = demand.member, demand.session
        demand.member.held[bucket] = None
        self._touch(bucket)
        return bucket

    def _touch(self, bucket: Bucket, at: float | None = None) -> None:
        bucket.touched = self.clock.now if at is None else at
        self._order += 1
        heappush(self._claimed, (bucket.touched, self._order, bucket))

    def _note_order(self, drawn: Sequence[Bucket]) -> None:
        fronts = [rank for rank in (self.ready.front, self.waiting.front) if rank is not None]
        if fronts:
            youngest = max(bucket.since[-1] for bucket in drawn)
            self.overtaken = max(self.overtaken, youngest - min(fronts))

    # The ways back

    def settle(self, submits: Sequence[Submit]) -> list[Outcome | None]:
        """A batch of submits of different buckets; None for those whose claim had ended."""
        found: list[Outcome | None] = []
        rows = items = stored = 0
        for one in submits:
            bucket = one.bucket
            current = bucket.claim == one.claim and bucket.holder is one.member
            if not current or (one.final and not one.items):
                found.append(None)
                continue
            outcome = self._settle(one)
            stored += 1
            items += one.items
            rows += 2 + one.items + outcome.calmed
            found.append(outcome)
        self.ledger.note("submit", 4 if stored else 3, rows, buckets=stored, items=items)
        for n, one in enumerate(submits):
            if found[n] is None:
                found[n] = self._alone(one)
        return found

    def _settle(self, one: Submit) -> Outcome:
        now, bucket, member = self.clock.now, one.bucket, one.member
        bucket.left -= one.items
        spread = self.settled_after[bucket.priority]
        if one.items:
            for since in bucket.since:
                spread.add(now - since, one.items / len(bucket.since))
        calmed = bool(one.items and member.streak)
        if calmed:
            member.streak, member.wait_until = 0, -math.inf
        if not bucket.left:
            self._let_go(bucket, "settled")
            bucket.state = "done"
            self._done.append(bucket)
        elif one.final:
            self._let_go(bucket, "partial")
            self._fail(bucket, member)
            self._return(bucket)
        elif one.items:
            bucket.state = "claimed"
            self._touch(bucket)
        return Outcome(closed=not bucket.left or one.final, freed=one.final and bucket.left > 0, calmed=calmed)

    def _alone(self, one: Submit) -> Outcome | None:
        current = one.bucket.claim == one.claim and one.bucket.holder is one.member
        if not current:
            # BEGIN, the bucket twice, what is stored, what was deleted, ROLLBACK.
            self.ledger.note("small", 6 if one.items else 5)
            return None
        self.ledger.note("small", 5)  # BEGIN, the bucket twice, what is stored, COMMIT; the release is in between
        self._free([one.bucket], GIVEN_UP)
        return Outcome(closed=True, freed=True, calmed=False)

    def release_session(self, session: object, member: Member, way: EndReason, delivered: Sequence[Bucket]) -> int:
        """Free what a session holds; what is not among the delivered costs nothing.  Returns how many it was."""
        return self._free([bucket for bucket in member.held if bucket.session is session], way, delivered)

    def release_claim(self, bucket: Bucket, claim: int, way: EndReason) -> int:
        """Free one bucket, if that claim is still the current one."""
        return self._free([bucket] if bucket.claim == claim and bucket.holder is not None else [], way)

    def _free(self, buckets: Sequence[Bucket], way: EndReason, delivered: Sequence[Bucket] | None = None) -> int:
        now = self.clock.now
        charged = set(buckets if delivered is None else delivered)
        payers = {bucket.holder: None for bucket in buckets if bucket.holder is not None and bucket in charged}
        refusals = 0
        for bucket in buckets:
            member = bucket.holder
            assert member is not None
            self._let_go(bucket, way.ended if bucket in charged else UNDELIVERED.ended)
            if way.attempts and bucket in charged:
                self._fail(bucket, member)
            if way.cost in ("given_back", "disconnects") and bucket in charged:
                times = member.refused[bucket][0] + 1 if bucket in member.refused else 1
                member.refused[bucket] = times, now + refused_for(times)
                bucket.given_back_by.append(member)
                refusals += 1
            self._return(bucket)
        for member in payers if way.cost in ("given_back", "disconnects") else ():
            member.streak += 1
            if member.streak > 1:
                member.wait_until = now + waits_for(member.streak)
        rows = 2 * len(buckets) + refusals + (len(payers) if way.cost else 0)
        self.ledger.note("release", 1, rows, buckets=len(buckets))
        return len(buckets)

    def _let_go(self, bucket: Bucket, ended: str) -> None:
        assert bucket.holder is not None
        del bucket.holder.held[bucket]
        self.held -= 1
        bucket.ended, bucket.ended_at, bucket.ended_by = ended, self.clock.now, bucket.holder
        if ended != "settled":
            bucket.holder.past.append(bucket)
        bucket.holder = bucket.session = None

    def _fail(self, bucket: Bucket, member: Member) -> None:
        bucket.attempts += 1
        bucket.failed_at.add(member)
        if bucket.attempts >= MAX_ATTEMPTS:
            self._order += 1
            bucket.split_at = self.clock.now + self.recollect_window
            heappush(self._split, (bucket.split_at, self._order, bucket))

    def _return(self, bucket: Bucket) -> None:
        bucket.state = "ready"
        if bucket.split_at is None:
            self._put(bucket)

    def recollect(self, member: Member, session: object, named: Sequence[Bucket]) -> list[Bucket]:
        """Give a client back what nobody has claimed since, and what is named of its other sessions."""
        now = self.clock.now
        past = [bucket for bucket in member.past if bucket.state == "ready" and bucket.ended_by is member]
        again = [bucket for bucket in named if bucket.holder is member and bucket.session is not session]
        again += [
            bucket
            for bucket in dict.fromkeys(past)
            if bucket.ended in (CUT_OFF.ended, CRASHED.ended) and bucket.ended_at > now - self.recollect_window
        ]
        candidates = bool(past or member.held)
        member.past.clear()
        member.past.extend(bucket for bucket in dict.fromkeys(past) if bucket not in again)
        rows = refunds = 0
        taken_over: list[tuple[Bucket, str, float]] = []
        for bucket in again:
            if bucket.holder is not None:
                taken_over.append((bucket, bucket.state, bucket.touched))
                del member.held[bucket]
                self.held -= 1
            else:
                if bucket.split_at is None:
                    self.ready.remove(bucket)
                bucket.split_at = None
                if bucket.ended == CUT_OFF.ended:
                    refunds += 1
                    rows += self._refund(member, bucket)
                    bucket.attempts -= 1
                    bucket.failed_at.discard(member)
            self._take(bucket, Demand(member, session))
        for bucket, state, touched in taken_over:  # who takes over from a session of its own holds it no longer by that
            bucket.state = state
            if state == "claimed":
                self._touch(bucket, touched)
            else:
                bucket.touched = touched
        if refunds:
            if member.streak <= 2:
                member.wait_until = -math.inf
            member.streak = max(member.streak - 1, 0)
            rows += 1
        self.ledger.note("recollect", 5 if candidates else 3, rows + 3 * len(again), buckets=len(again))
        return again

    def _refund(self, member: Member, bucket: Bucket) -> bool:
        """Take back what a cut-off has cost; whether it cost anything."""
        if bucket not in member.refused:
            return False
        times, until = member.refused.pop(bucket)
        if times > 1:
            member.refused[bucket] = times - 1, min(until, self.clock.now + refused_for(times - 1))
        return True

    def report(self, member: Member, seconds: float) -> None:
        """Serve this client nothing for so long."""
        member.report_until = self.clock.now + seconds
        self.ledger.note("small", 1, 1)

    # What the clock does

    def tick(self) -> tuple[list[Freed], int]:
        """One look of one node at the clock; returns the claims that it ended, and how many buckets it made."""
        now, settings = self.clock.now, self.settings
        low, broken = self._low(), self._any_broken()
        marked: list[Bucket] = []
        while self._claimed and self._claimed[0][0] <= now - settings.dead_after:
            touched, order, bucket = heappop(self._claimed)
            if bucket.state == "claimed" and bucket.touched == touched:
                bucket.state, bucket.touched = "dead", now
                heappush(self._dead, (now, order, bucket))
                marked.append(bucket)
        dead: list[Freed] = []
        while self._dead and self._dead[0][0] <= now - settings.release_after:
            touched, _, bucket = heappop(self._dead)
            if bucket.state == "dead" and bucket.touched == touched and bucket.holder is not None:
                dead.append(Freed(bucket, bucket.claim, bucket.holder, bucket.session))
        if dead:
            self._free([one.bucket for one in dead], DEAD)
        holders = len({bucket.holder for bucket in marked})
        retired, rows = self._retire()
        # What is due, kept ones, retiring and old sessions; marking, and cutting up (4), only where something is.
        self.ledger.note("clock", 4 + bool(marked) + 4 * broken, len(marked) + holders + rows, buckets=retired)
        if broken:
            self._cut_broken()
        return dead, self.make() if low else 0

    def _low(self) -> bool:
        """Whether buckets may have to be made, as the look at what is due tells it."""
        front, back = self.waiting.front, self.ready.back
        if front is None:
            return False
        enough = self.waiting.items >= self.settings.bucket_size
        return (back is not None and front < back) or (
            enough and self.ready.size < pool_target(self.members, self.settings)
        )

    def _any_broken(self) -> bool:
        while self._split and self._split[0][0] <= self.clock.now:
            split_at, _, bucket = self._split[0]
            if bucket.split_at == split_at and bucket.state == "ready":
                return True
            heappop(self._split)  # it was recollected
        return False

    def _retire(self) -> tuple[int, int]:
        """Put done buckets aside; returns how many, and the rows written."""
        retired = min(len(self._done), 1000)
        rows = 2 * retired
        for _ in range(retired):
            bucket = self._done.popleft()
            for member in set(bucket.given_back_by):
                rows += member.refused.pop(bucket, None) is not None
        return retired, rows

    def _cut_broken(self) -> None:
        cut = 0
        while self._split and self._split[0][0] <= self.clock.now and cut < 20:
            split_at, _, bucket = heappop(self._split)
            if bucket.split_at != split_at or bucket.state != "ready":
                continue  # it was recollected
            cut += 1
            if bucket.left > 1:
                size = part_size(bucket.left)
                parts = [min(size, bucket.left - at) for at in range(0, bucket.left, size)]
                self._close(bucket)
                for part in parts:
                    self._put(Bucket(bucket.rank, bucket.since, bucket.priority, part))
                self.ledger.note("make", 2 + len(parts), 1 + 2 * len(parts), buckets=len(parts))
            elif len(bucket.failed_at) < 2:
                bucket.split_at = None
                self._put(bucket)
                self.ledger.note("make", 1, 1)
            else:
                self._close(bucket)
                self.quarantined += 1
                self.ledger.note("make", 3, 3)

    def _close(self, bucket: Bucket) -> None:
        bucket.state, bucket.split_at = "done", None
        self._done.append(bucket)


def _quantiles(group: Sequence[Batch], count: int) -> tuple[float, ...]:
    """The times since which the first `count` items of a group wait, in QUANTILES equal shares and the last."""
    wanted = [count * n // QUANTILES for n in range(QUANTILES)] + [count - 1]
    found, passed, batches = [], 0, iter(group)
    batch = next(batches)
    for place in wanted:
        while passed + batch.count <= place:
            passed += batch.count
            batch = next(batches)
        found.append(batch.since)
    return tuple(found)
