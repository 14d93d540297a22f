"""Keeps one session open: connects, and connects again."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, TypeVar

from coordinator.client.backoff import Backoff
from coordinator.client.identity import ClientIdentity
from coordinator.client.session import OPEN_TIMEOUT, Session, SessionEnded
from coordinator.errors import Refused
from coordinator.wire.client import Hello, Hold, Welcome
from coordinator.wire.frames import PROTOCOL, Answer, Push, Request

log = logging.getLogger("coordinator.client")

A = TypeVar("A", bound=Answer)

TRANSIENT_REFUSALS = frozenset({"unavailable", "rate_limited", "quota", "draining"})
"""Refusals that a repeat of the same request, a little later, need not meet."""

_STABLE_AFTER = 10.0
"""Seconds that a session has to last before the next reconnect may be quick again."""


class SessionListener(Protocol):
    """Who is told what happens on the link; all in the order of the wire, none may wait."""

    def holds(self) -> list[Hold] | None:
        """What `hello` says is held; nothing if there is nothing to recollect."""

    def welcomed(self, welcome: Welcome) -> None:
        """A session has begun; its requests and pushes come after this."""

    def pushed(self, push: Push) -> None:
        """The server said something of its own accord."""

    def cut(self) -> None:
        """The session that `welcomed` told of has ended."""

    def failed(self, why: SessionEnded) -> None:
        """There will be no further session."""


class Reconnector:
    """The way to the server, over as many connections as it takes."""

    def __init__(
        self,
        url: str,
        identity: ClientIdentity,
        agent: str,
        listener: SessionListener,
        backoff: Backoff,
        open_timeout: float = OPEN_TIMEOUT,
    ) -> None:
        self.failure: SessionEnded | None = None
        self.current: Session | None = None
        self._url = url
        self._identity = identity
        self._agent = agent
        self._listener = listener
        self._backoff = backoff
        self._open_timeout = open_timeout
        self._changed = asyncio.Event()

    @property
    def draining(self) -> bool:
        """Whether the server has said that this session is about to end."""
        return self.current is not None and self.current.draining

    async def run(self) -> None:
        """Keep a session open until there is no sense in it."""
        while True:
            try:
                await self._run_one_session()
            except SessionEnded as ended:
                if ended.final:
                    self.fail(ended)
                    return
                wait = self._backoff.next(ended.retry_after or 0.0)
                log.warning("%s Trying again in %.1f s.", ended, wait)
                await asyncio.sleep(wait)

    async def session(self) -> Session:
        """The open session, waited for.

        Raises:
            SessionEnded: there will be none any more.
        """
        while True:
            if self.failure is not None:
                raise self.failure
            if self.current is not None:
                return self.current
            await self._changed.wait()

    async def request(self, message: Request, expects: type[A]) -> A:
        """Ask for something that may be asked twice; survives lost connections and transient refusals.

        Raises:
            Refused: the server said no, for good.
            SessionEnded: there is no way to the server any more.
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
        """Wait until a session that has ended is not the current one any more."""
        while self.current is session and self.failure is None:
            await self._changed.wait()

    def fail(self, why: SessionEnded) -> None:
        """End the link for good; all who wait for it are told why."""
        if self.failure is None:
            self.failure = why
            self._listener.failed(why)
            self._notify()

    async def _run_one_session(self) -> None:
        hello = Hello(
            protocol=PROTOCOL,
            client_id=self._identity.client_id,
            secret=self._identity.secret,
            agent=self._agent,
            holds=self._listener.holds(),
        )
        loop = asyncio.get_running_loop()
        session = await Session.open(self._url, hello, self._open_timeout)
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
        """Wake all who wait for a change; who comes later waits for the next."""
        self._changed.set()
        self._changed = asyncio.Event()
