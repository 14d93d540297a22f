"""The volunteer's daemon: asks, checks, submits, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from coordinator.client.backoff import Backoff
from coordinator.client.causes import describe
from coordinator.client.checkers import CheckFailed, NoResultInTime, ProgramDied, UpstreamLimited, UpstreamOut
from coordinator.client.library import Client
from coordinator.client.service_work import ItemInHand, ServiceWork
from coordinator.errors import ConfigError, CoordinatorError, Refused
from coordinator.wording import counted

log = logging.getLogger("coordinator.client")

STOP_GRACE = 10.0
"""Seconds that items in check have to finish once the daemon is told to stop."""

_REJOIN_DELAY_DEACTIVATED = 60.0
"""Seconds until a client that an admin took out of a service asks whether it may come back."""

_REJOIN_REFUSALS = frozenset({"not_registered", "not_joined", "client_deactivated"})
"""Refusals of an ask after which the daemon joins the service again."""

_REPORT_TIMEOUT = 5.0
_MAX_REPORT = 200
"""Characters of a report's text."""

_RELEASE_ALL_TIMEOUT = 5.0
"""Seconds that releasing all buckets may take after a checker gave up."""


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
        self._page_told = False
        self._turns = 0
        self._in_check = 0
        self._failure: ConfigError | None = None
        self._beside: set[asyncio.Task[None]] = set()

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
            async with self.client, self._ending_what_runs_beside(), asyncio.TaskGroup() as group:
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
        if self._failure is not None:
            raise self._failure

    async def _finish(self) -> None:
        """Stop asking, and give the items in check their grace."""
        if self._in_check:
            log.info("stopping: %s in check may take %g s", counted(self._in_check, "item"), self._stop_grace)
        for work in self._works:
            if work.stream is not None:
                work.stream.stop()

        try:
            async with asyncio.timeout(self._stop_grace):
                await self._none_in_check.wait()
        except TimeoutError:
            log.warning("left unfinished: %s", counted(self._in_check, "item"))

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

            if not self._page_told:
                self._page_told = True
                token = "" if welcome.viewers == "open" else " (it opens with a viewer's token)"
                log.info("your page: %s%s", self.client.page, token)

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
                    work.add(bucket)
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
        if short <= 0 or self._stopping.is_set() or work.pause.seconds > 0:
            return 0
        if work.pause.out_since is not None and work.has_control:
            return 0  # what finds out the end of the outage needs no bucket

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

    def _next_item(self) -> tuple[ServiceWork, ItemInHand] | None:
        """Take the item to check next: services take turns, the buckets of each come in order."""
        if self._stopping.is_set():
            return None

        for _ in self._works:
            work = self._works[self._turns % len(self._works)]
            self._turns += 1
            hand = work.next()
            if hand is not None:
                return work, hand
        return None

    async def _check(self, work: ServiceWork, hand: ItemInHand) -> None:
        began = work.pause.begin()
        try:
            await self._settle(work, hand)
            work.note_answer(hand, began)
        except UpstreamLimited as limit:
            work.waiting.appendleft(hand)
            self._wait_out(work, work.pause.limited(limit.retry_after, limit.why), limit.why)
        except UpstreamOut as outage:
            await self._retry(work, hand, outage, began)

        except (NoResultInTime, ProgramDied) as failure:
            self._give_up(work, hand, str(failure), is_fault=True)
        except CheckFailed as failure:
            work.note_answer(hand, began)
            self._give_up(work, hand, str(failure))
        except ConfigError as failure:
            self._failure = failure  # what ends the work may end this task while it waits for the server
            await self._release_all(str(failure))
            raise
        except Exception as failure:
            # The call of a checker, which may raise anything: its item goes back, the others go on.
            log.debug("%s", work.service, exc_info=True)
            self._give_up(work, hand, describe(failure), is_fault=True)
        finally:
            work.pause.end(began)
            self._wake_checks()

    async def _settle(self, work: ServiceWork, hand: ItemInHand) -> None:
        """Check one item, and keep its result; raises as its checker does."""
        await self._keep(hand, await work.result_of(hand.item))

    async def _keep(self, hand: ItemInHand, result: dict[str, Any]) -> None:
        """Keep the result of an item, unless it was settled or taken away meanwhile."""
        if hand.wanted:
            fields = {name: value for name, value in result.items() if name != "item"}
            await hand.bucket.settle(hand.item["item"], **fields)

    async def _retry(self, work: ServiceWork, hand: ItemInHand, outage: UpstreamOut, began: float) -> None:
        """Check an item again later, behind the others, unless the outside API fails over it alone."""
        to_blame = work.is_to_blame(hand)
        if not to_blame and await work.works_for_others(hand):
            work.pause.answered(began)
            try:
                await self._settle(work, hand)
            except UpstreamOut:
                to_blame = True
            except Exception:
                work.waiting.appendleft(hand)  # its next check, which may begin now, tells what is wrong with it
                return
            else:
                work.note_answer(hand, began)
                return

        if to_blame:
            unanswered = work.unanswered()
            if unanswered is not None:
                await self._keep(hand, unanswered)
            else:
                self._give_up(work, hand, f"The outside API fails over this item alone: {outage.why}")
            return
        work.waiting.append(hand)
        self._wait_out(work, work.pause.failed(outage.why, outage.at_least, began), outage.why)

    def _give_up(self, work: ServiceWork, hand: ItemInHand, why: str, *, is_fault: bool = False) -> None:
        """Leave an item unsettled: it goes back with the rest of its bucket; `is_fault` if it is the checker's."""
        item, key = hand.item["item"], hand.item.get("key")
        work.failures.line(f"item {item} ({key}) cannot be checked: {why}")
        hand.bucket.skip(item, why if is_fault else "")

    def _wait_out(self, work: ServiceWork, seconds: float | None, why: str) -> None:
        """Begin checks again when the pause is over; tell the server of a new one, of so many `seconds`."""
        loop = asyncio.get_running_loop()
        loop.call_later(max(0.0, work.pause.seconds), self._resume, work)
        for hand in work.take_late():
            hand.bucket.skip(hand.item["item"])
        if seconds is None:
            return

        self._begin(self._report(work, seconds, why), f"report {work.service}")

    def _begin(self, step: Coroutine[Any, Any, None], name: str) -> None:
        """Run a step beside the checks, until the work ends."""
        task = asyncio.get_running_loop().create_task(step, name=name)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _report(self, work: ServiceWork, seconds: float, why: str) -> None:
        """Have the server send no work of a service for so long; while it cannot be reached, none comes anyway."""
        try:
            async with asyncio.timeout(max(seconds, _REPORT_TIMEOUT)):
                await self.client.report_limited(work.service, seconds, why[:_MAX_REPORT])
        except TimeoutError:
            pass
        except CoordinatorError as failure:
            log.debug("%s", failure)

    async def _look_again(self, work: ServiceWork) -> None:
        """Find out whether an outage is over, where no item is in hand that would."""
        began = work.pause.begin()
        try:
            if await work.is_answered():
                work.pause.answered(began)
            else:
                why = work.pause.why
                self._wait_out(work, work.pause.failed(why, 0.0, began), why)
        finally:
            work.pause.end(began)
            self._wake_checks()
            if work.stream is not None:
                work.stream.nudge()

    @asynccontextmanager
    async def _ending_what_runs_beside(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for task in self._beside:
                task.cancel()
            for work in self._works:
                work.failures.flush()

    def _resume(self, work: ServiceWork) -> None:
        idle = not work.waiting and work.pause.admits() and not self._stopping.is_set()
        if idle and work.pause.out_since is not None and work.has_control:
            self._begin(self._look_again(work), f"look again {work.service}")
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
