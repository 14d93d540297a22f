"""The volunteer's daemon: asks, checks, submits, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from coordinator.client.backoff import Backoff
from coordinator.client.bucket_stream import BucketStream
from coordinator.client.checkers import Checker, UpstreamLimited
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.library import Client
from coordinator.errors import ConfigError, CoordinatorError, Refused

log = logging.getLogger("coordinator.client")

STOP_GRACE = 10.0
"""Seconds that items in check have to finish once the daemon is told to stop."""

_MIN_CHECK_TIMEOUT = 60.0
"""Least seconds that a checker has for one item; more if the bucket can be held for longer."""

_REPORT_AGAIN_MARGIN = 5.0
"""Seconds by which a new limit must outlast the reported one to be reported too."""

_REJOIN_DELAY_DEACTIVATED = 60.0
"""Seconds until a client that an admin took out of a service asks whether it may come back."""

_REJOIN_REFUSALS = frozenset({"not_registered", "not_joined", "client_deactivated"})
"""Refusals of an ask after which the daemon joins the service again."""

_MIN_UPSTREAM_WAIT = 1.0
"""Seconds."""

_RELEASE_ALL_TIMEOUT = 5.0
"""Seconds that releasing all buckets may take after a checker gave up."""


@dataclass(eq=False)
class ServiceWork:
    """A service that the daemon works for, and its items that wait for a check.

    `profile` is sent with the join, and given to the checker.  `limited_until` is in the loop's time.
    """

    service: str
    check: Checker
    profile: dict[str, Any] | None = None
    waiting: deque[tuple[HeldBucket, dict[str, Any]]] = field(default_factory=deque)
    stream: BucketStream | None = None
    bucket_size: int = 0
    limited_until: float = 0.0


class Daemon:
    """Works for one or several services over one client.

    `concurrency` items are in check at once over all services; services take turns.
    """

    def __init__(
        self,
        client: Client,
        works: list[ServiceWork],
        *,
        concurrency: int = 4,
        screen_name: str | None = None,
        enrolment_token: str | None = None,
        stop_grace: float = STOP_GRACE,
    ) -> None:
        self.client = client
        self._works = works
        self._concurrency = concurrency
        self._screen_name = screen_name or client.identity.client_id
        self._enrolment_token = enrolment_token
        self._stop_grace = stop_grace

        self._registered = False
        self._turns = 0
        self._in_check = 0

        self._enrolling = asyncio.Lock()
        self._releasing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._work_changed = asyncio.Event()
        self._none_in_check = asyncio.Event()
        self._none_in_check.set()

    def stop(self) -> None:
        """Begin no further item; `run` returns once the items in check have finished and the rest is given back."""
        self._stopping.set()
        self._work_changed.set()

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            SessionEnded: the server refuses this client for good.
            Refused: it cannot register, or join a service.
            ConfigError: a checker cannot work at all.
        """
        try:
            async with self.client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._receive_buckets(work), name=work.service) for work in self._works]
                tasks += [group.create_task(self._check_items(), name=f"check {n}") for n in range(self._concurrency)]

                await self._stopping.wait()
                await self._finish()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as failures:
            faults = failures.subgroup(CoordinatorError)
            if faults is None:
                raise
            raise _first(faults) from None

    async def _finish(self) -> None:
        """Stop asking, and give the items in check their grace."""
        log.info("stopping: %d items in check have %g s", self._in_check, self._stop_grace)
        for work in self._works:
            if work.stream is not None:
                work.stream.stop()

        try:
            async with asyncio.timeout(self._stop_grace):
                await self._none_in_check.wait()
        except TimeoutError:
            log.warning("%d items are left unfinished", self._in_check)

    async def _enrol(self, work: ServiceWork) -> None:
        """Join a service; register before that if the server does not know this client."""
        async with self._enrolling:  # one registration is enough for all services
            welcome = await self.client.welcome()
            if not welcome.registered and not self._registered:
                await self._register()

            try:
                await self.client.join(work.service, work.profile)
            except Refused as refused:
                if refused.code != "not_registered":
                    raise
                await self._register()
                await self.client.join(work.service, work.profile)

    async def _register(self) -> None:
        await self.client.register(self._screen_name, self._enrolment_token)
        self._registered = True

    async def _receive_buckets(self, work: ServiceWork) -> None:
        """Take the buckets of one service as they arrive; join again after refusals that allow it."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                await self._enrol(work)
                work.stream = self.client.bucket_stream(work.service, lambda: self._buckets_wanted(work))
                async for bucket in work.stream:
                    work.bucket_size = max(1, len(bucket.items))
                    work.waiting.extend((bucket, item) for item in bucket.items)
                    backoff.reset()
                    self._wake_checks()

            except Refused as refused:
                if refused.code not in _REJOIN_REFUSALS:
                    raise
                wait = backoff.next(_REJOIN_DELAY_DEACTIVATED if refused.code == "client_deactivated" else 0.0)
                log.warning("%s: %s Joining again in %.1f s.", work.service, refused, wait)
                await asyncio.sleep(wait)

    def _buckets_wanted(self, work: ServiceWork) -> int:
        """Count the buckets to have on their way: as many as give each check another item."""
        short = self._concurrency - len(work.waiting)
        if short <= 0 or self._stopping.is_set() or self._limited_for(work) > 0:
            return 0

        wanted = math.ceil(short / work.bucket_size) if work.bucket_size else 1
        return wanted - (work.stream.arrived if work.stream is not None else 0)

    async def _check_items(self) -> None:
        """Check one item after the other; `concurrency` tasks do."""
        while True:
            next_item = self._next_item()
            if next_item is None:
                if self._stopping.is_set():
                    return
                self._work_changed.clear()
                await self._work_changed.wait()
                continue

            self._in_check += 1
            self._none_in_check.clear()
            try:
                await self._check(*next_item)
            finally:
                self._in_check -= 1
                if self._in_check == 0:
                    self._none_in_check.set()

    def _next_item(self) -> tuple[ServiceWork, HeldBucket, dict[str, Any]] | None:
        """Take the item to check next: services take turns, the buckets of each come in order."""
        if self._stopping.is_set():
            return None

        for _ in self._works:
            work = self._works[self._turns % len(self._works)]
            self._turns += 1
            while work.waiting and self._limited_for(work) <= 0:
                bucket, item = work.waiting.popleft()
                if work.stream is not None:
                    work.stream.nudge()
                if item["item"] in bucket.unsettled and not bucket.lost.is_set():
                    return work, bucket, item
        return None

    async def _check(self, work: ServiceWork, bucket: HeldBucket, item: dict[str, Any]) -> None:
        timeout = max(_MIN_CHECK_TIMEOUT, bucket.dead_after + bucket.release_after)

        try:
            async with asyncio.timeout(timeout):
                result = await work.check(dict(item), work.profile or {})

            if item["item"] in bucket.unsettled:  # else it was settled or taken away meanwhile
                await bucket.settle(item["item"], **{n: v for n, v in result.items() if n != "item"})
        except UpstreamLimited as limit:
            work.waiting.appendleft((bucket, item))
            await self._wait_out(work, limit.retry_after)
        except ConfigError as failure:
            await self._release_all(str(failure))
            raise
        except Exception:
            # The call of a checker, which may raise anything: its item goes back, the others go on.
            log.exception("%s: item %s (%s) cannot be checked", work.service, item["item"], item.get("key"))
            bucket.skip(item["item"])

    async def _wait_out(self, work: ServiceWork, retry_after: float) -> None:
        """Begin no item of the service for `retry_after` seconds, keep its buckets, and report the limit."""
        loop = asyncio.get_running_loop()
        retry_after = max(retry_after, _MIN_UPSTREAM_WAIT)
        is_new = retry_after > self._limited_for(work) + _REPORT_AGAIN_MARGIN or self._limited_for(work) <= 0
        work.limited_until = max(work.limited_until, loop.time() + retry_after)
        loop.call_at(work.limited_until, self._resume, work)

        if is_new:
            log.warning("%s: the outside API takes nothing for %.0f s", work.service, retry_after)
            try:
                await self.client.report_limited(work.service, retry_after)
            except Refused as refused:
                log.warning("%s", refused)

    def _limited_for(self, work: ServiceWork) -> float:
        """Return the seconds until the service's outside API takes requests again; not above 0 if it does."""
        return work.limited_until - asyncio.get_running_loop().time()

    def _resume(self, work: ServiceWork) -> None:
        self._wake_checks()
        if work.stream is not None:
            work.stream.nudge()

    async def _release_all(self, why: str) -> None:
        """Stop, and release all buckets, which this daemon can never check."""
        self._stopping.set()
        try:
            async with self._releasing, asyncio.timeout(_RELEASE_ALL_TIMEOUT):
                for bucket in self.client.held:
                    try:
                        await bucket.release(why[:1000])
                    except Refused as refused:
                        log.warning("%s", refused)
        except TimeoutError:
            log.warning("the server is too slow to give everything back to")

    def _wake_checks(self) -> None:
        """Wake the tasks that found no item to check."""
        self._work_changed.set()


def _first(failures: BaseExceptionGroup[CoordinatorError]) -> CoordinatorError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
