"""The volunteer's daemon: asks, checks, submits, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from coordinator.client.backoff import Backoff
from coordinator.client.bucket import Bucket
from coordinator.client.checkers import Checker, UpstreamLimited
from coordinator.client.intake import Intake
from coordinator.client.library import Client
from coordinator.errors import ConfigError, CoordinatorError, Refused

log = logging.getLogger("coordinator.client")

STOP_GRACE = 10.0
"""Seconds that items in check have to finish once the daemon is told to stop."""

_LEAST_CHECK = 60.0
"""Seconds that a checker has for one item in any case; else as long as the bucket could be ours."""

_REPORT_AGAIN = 5.0
"""Seconds by which a limit has to outlast the one that was reported, to be reported too."""

_ENROL_AGAIN = 60.0
"""Seconds until a client that an admin took out of a service asks whether it may come back."""

_ENROL_AFTER = frozenset({"not_registered", "not_joined", "client_deactivated"})
_LEAST_WAIT = 1.0
_GIVE_BACK = 5.0
"""Seconds that giving all back may take when there is no use in going on."""


@dataclass(eq=False)
class Duty:
    """One service that the daemon works for.  `profile` is what it joins with, and what the checker gets."""

    service: str
    check: Checker
    profile: dict[str, Any] | None = None
    waiting: deque[tuple[Bucket, dict[str, Any]]] = field(default_factory=deque)
    intake: Intake | None = None
    bucket_size: int = 0
    limited_until: float = 0.0


class Daemon:
    """Works for one or several services over one client.

    `concurrency` items are in check at once, whatever their service; services take turns.
    """

    def __init__(
        self,
        client: Client,
        duties: list[Duty],
        *,
        concurrency: int = 4,
        screen_name: str | None = None,
        enrolment_token: str | None = None,
        stop_grace: float = STOP_GRACE,
    ) -> None:
        self.client = client
        self._duties = duties
        self._concurrency = concurrency
        self._screen_name = screen_name or client.identity.client_id
        self._enrolment_token = enrolment_token
        self._stop_grace = stop_grace
        self._registered = False
        self._enrolling = asyncio.Lock()
        self._surrendering = asyncio.Lock()
        self._turn = 0
        self._in_check = 0
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def stop(self) -> None:
        """Begin no item more; `run` returns when what is in check has finished and the rest is given back."""
        self._stopping.set()
        self._news.set()

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            SessionEnded: the server wants this client no more, or never did.
            Refused: it cannot register, or join a service.
            ConfigError: a checker says that there is no use in going on.
        """
        try:
            async with self.client, asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._receive(duty), name=duty.service) for duty in self._duties]
                tasks += [group.create_task(self._work(), name=f"check {n}") for n in range(self._concurrency)]
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
        log.info("stopping: %d items in check have %g s", self._in_check, self._stop_grace)
        for duty in self._duties:
            if duty.intake is not None:
                duty.intake.stop()
        try:
            async with asyncio.timeout(self._stop_grace):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d items are left unfinished", self._in_check)

    async def _enrol(self, duty: Duty) -> None:
        """Be a client of this service: register if the server does not know us, and join."""
        async with self._enrolling:  # one registration is enough for all services
            welcome = await self.client.welcome()
            if not welcome.registered and not self._registered:
                await self._register()
            try:
                await self.client.join(duty.service, duty.profile)
            except Refused as refused:
                if refused.code != "not_registered":
                    raise
                await self._register()
                await self.client.join(duty.service, duty.profile)

    async def _register(self) -> None:
        await self.client.register(self._screen_name, self._enrolment_token)
        self._registered = True

    async def _receive(self, duty: Duty) -> None:
        """Take the buckets of one service as they come."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                await self._enrol(duty)
                duty.intake = self.client.intake(duty.service, lambda: self._wanted(duty))
                async for bucket in duty.intake:
                    duty.bucket_size = max(1, len(bucket.items))
                    duty.waiting.extend((bucket, item) for item in bucket.items)
                    backoff.reset()
                    self._tell()
            except Refused as refused:
                if refused.code not in _ENROL_AFTER:
                    raise
                wait = backoff.next(_ENROL_AGAIN if refused.code == "client_deactivated" else 0.0)
                log.warning("%s: %s Joining again in %.1f s.", duty.service, refused, wait)
                await asyncio.sleep(wait)

    def _wanted(self, duty: Duty) -> int:
        """Buckets to have on their way: as many as keep each check busy once more."""
        short = self._concurrency - len(duty.waiting)
        if short <= 0 or self._stopping.is_set() or self._limited(duty) > 0:
            return 0
        wanted = math.ceil(short / duty.bucket_size) if duty.bucket_size else 1
        return wanted - (duty.intake.arrived if duty.intake is not None else 0)

    async def _work(self) -> None:
        """Check one item after the other."""
        while True:
            found = self._next()
            if found is None:
                if self._stopping.is_set():
                    return
                self._news.clear()
                await self._news.wait()
                continue
            self._in_check += 1
            self._idle.clear()
            try:
                await self._check(*found)
            finally:
                self._in_check -= 1
                if self._in_check == 0:
                    self._idle.set()

    def _next(self) -> tuple[Duty, Bucket, dict[str, Any]] | None:
        """The item to check now: each service that has one in turn, each one's buckets in order."""
        if self._stopping.is_set():
            return None
        for _ in self._duties:
            duty = self._duties[self._turn % len(self._duties)]
            self._turn += 1
            while duty.waiting and self._limited(duty) <= 0:
                bucket, item = duty.waiting.popleft()
                if duty.intake is not None:
                    duty.intake.nudge()
                if item["item"] in bucket.unsettled and not bucket.lost.is_set():
                    return duty, bucket, item
        return None

    async def _check(self, duty: Duty, bucket: Bucket, item: dict[str, Any]) -> None:
        patience = max(_LEAST_CHECK, bucket.dead_after + bucket.release_after)
        try:
            async with asyncio.timeout(patience):
                result = await duty.check(dict(item), duty.profile or {})
            if item["item"] in bucket.unsettled:  # else it was settled or taken away meanwhile
                await bucket.settle(item["item"], **{n: v for n, v in result.items() if n != "item"})
        except UpstreamLimited as limit:
            duty.waiting.appendleft((bucket, item))
            await self._wait_out(duty, limit.retry_after)
        except ConfigError as failure:
            await self._surrender(str(failure))
            raise
        except Exception:
            # The call of a checker, which may do anything: its item goes back, the others go on.
            log.exception("%s: item %s (%s) cannot be checked", duty.service, item["item"], item.get("key"))
            bucket.skip(item["item"])

    async def _wait_out(self, duty: Duty, retry_after: float) -> None:
        """Keep the service's items, and begin none until the outside API takes requests again."""
        loop = asyncio.get_running_loop()
        retry_after = max(retry_after, _LEAST_WAIT)
        news = retry_after > self._limited(duty) + _REPORT_AGAIN or self._limited(duty) <= 0
        duty.limited_until = max(duty.limited_until, loop.time() + retry_after)
        loop.call_at(duty.limited_until, self._resume, duty)
        if news:
            log.warning("%s: the outside API takes nothing for %.0f s", duty.service, retry_after)
            try:
                await self.client.report_limited(duty.service, retry_after)
            except Refused as refused:
                log.warning("%s", refused)

    def _limited(self, duty: Duty) -> float:
        """Seconds that the service's outside API takes nothing for."""
        return duty.limited_until - asyncio.get_running_loop().time()

    def _resume(self, duty: Duty) -> None:
        self._tell()
        if duty.intake is not None:
            duty.intake.nudge()

    async def _surrender(self, why: str) -> None:
        """Give all buckets back: here they will never be checked."""
        self._stopping.set()
        try:
            async with self._surrendering, asyncio.timeout(_GIVE_BACK):
                for bucket in self.client.held:
                    try:
                        await bucket.release(why[:1000])
                    except Refused as refused:
                        log.warning("%s", refused)
        except TimeoutError:
            log.warning("the server is too slow to give everything back to")

    def _tell(self) -> None:
        """Wake the workers that found nothing to do."""
        self._news.set()


def _first(failures: BaseExceptionGroup[CoordinatorError]) -> CoordinatorError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
