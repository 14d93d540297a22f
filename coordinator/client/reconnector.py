"""The connection to the server: one session is kept open, and opened again whenever it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, TypeVar

from coordinator.client.address import Trust
from coordinator.client.backoff import Backoff
from coordinator.client.identity import ClientIdentity
from coordinator.client.session import Session, SessionEnded
from coordinator.errors import Refused
from coordinator.wire.client import Hello, Hold, Welcome
from coordinator.wire.frames import PROTOCOL, Answer, Push, Request

log = logging.getLogger("coordinator.client")

A = TypeVar("A", bound=Answer)

TRANSIENT_REFUSALS = frozenset({"unavailable", "rate_limited", "quota", "draining"})
"""Refusals after which the same request may succeed a little later."""

_STABLE_AFTER = 10.0
"""Seconds that a session has to last before the next reconnect may be quick again."""


class SessionListener(Protocol):
    """The one who is told of sessions and pushes, in the order in which the server speaks; no method may wait."""

    def holds(self) -> list[Hold] | None:
        """Name the held buckets for `hello`; None if there is nothing to recollect."""

    def welcomed(self, welcome: Welcome) -> None:
        """Begin a session; its answers and pushes come after this."""

    def pushed(self, push: Push) -> None:
        """Take a message that the server sent unasked."""

    def cut(self) -> None:
        """End the session that `welcomed` began."""

    def failed(self, why: SessionEnded) -> None:
        """Give up: there will be no further session."""


class Reconnector:
    """Opens a session, and another one whenever it ends, until the server refuses for good.

    `current` is the open session, if there is one; `failure` says why there will be no other.
    """

    def __init__(
        self,
        url: str,
        identity: ClientIdentity,
        agent: str,
        listener: SessionListener,
        backoff: Backoff,
        trust: Trust,
    ) -> None:
        self.failure: SessionEnded | None = None
        self.current: Session | None = None

        self._url = url
        self._identity = identity
        self._agent = agent
        self._listener = listener
        self._backoff = backoff
        self._trust = trust
        self._was_welcome = False
        self._changed = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Tell whether the server has announced the end of this session."""
        return self.current is not None and self.current.draining

    async def run(self) -> None:
        """Keep a session open until the server refuses this client for good."""
        while True:
            try:
                await self._run_one_session()
            except SessionEnded as ended:
                if ended.final or (ended.unwelcome and not self._was_welcome):
                    self.fail(ended)
                    return
                wait = self._backoff.next(ended.retry_after or 0.0)
                log.warning("%s Trying again in %.1f s.", ended, wait)
                await asyncio.sleep(wait)

    async def session(self) -> Session:
        """Wait for the open session and return it.

        Raises:
            SessionEnded: there will be no other session.
        """
        while True:
            if self.failure is not None:
                raise self.failure
            if self.current is not None:
                return self.current
            await self._changed.wait()

    async def request(self, message: Request, expects: type[A]) -> A:
        """Make a request that is safe to repeat; repeats it after lost connections and transient refusals.

        Raises:
            Refused: the server said no, for good.
            SessionEnded: there will be no other session.
        """
        backoff = Backoff()
        while True:
            session = await self.session()
            try:
                return await session.request(message, expects)
            except SessionEnded as ended:
                if ended.final and self.failure is None:
                    self.fail(ended)
                await self.wait_until_ended(session)
            except Refused as refused:
                if refused.code not in TRANSIENT_REFUSALS:
                    raise

                wait = backoff.next(refused.retry_after or 0.0)
                log.warning("%s Trying again in %.1f s.", refused, wait)
                await asyncio.sleep(wait)

    async def wait_until_ended(self, session: Session) -> None:
        """Wait until this session is not the current one any more."""
        while self.current is session and self.failure is None:
            await self._changed.wait()

    def fail(self, why: SessionEnded) -> None:
        """Give up for good, and tell all who wait why."""
        if self.failure is None:
            self.failure = why
            self._listener.failed(why)
            self._notify()

    async def _run_one_session(self) -> None:
        """Open a session and read it to its end, which is always raised as SessionEnded."""
        hello = Hello(
            protocol=PROTOCOL,
            client_id=self._identity.client_id,
            secret=self._identity.secret,
            agent=self._agent,
            holds=self._listener.holds(),
        )

        loop = asyncio.get_running_loop()
        session = await Session.open(self._url, hello, self._trust)
        self._was_welcome = True
        began = loop.time()

        try:
            self._listener.welcomed(session.welcome)
            self.current = session
            self._notify()
            log.info("connected to %s as %s", self._url, self._identity.client_id)
            await session.run(self._listener.pushed)
        finally:
            self.current = None
            self._listener.cut()
            self._notify()
            if loop.time() - began >= _STABLE_AFTER:
                self._backoff.reset()
            await session.close()

    def _notify(self) -> None:
        """Wake all who wait for a change; those who come later wait for the next one."""
        self._changed.set()
        self._changed = asyncio.Event()
