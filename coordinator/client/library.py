"""The client library: work for a coordinator from Python.

async with Client("ws://127.0.0.1:8765", client_id="ada") as client:
    await client.register("ada")
    await client.join("dm_check", {"source": "ada"})
    async for bucket in client.buckets("dm_check", concurrency=2):
        for item in bucket.items:
            await bucket.settle(item["item"], dm=await look(item["key"]))
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from coordinator import __version__
from coordinator.client.address import check_secrecy, client_url, page_url, trust_for
from coordinator.client.backoff import Backoff
from coordinator.client.bucket_stream import BucketStream
from coordinator.client.held_bucket import HeldBucket
from coordinator.client.held_buckets import HeldBuckets
from coordinator.client.identity import default_folder, load_identity
from coordinator.client.proxies import proxy_for
from coordinator.client.reconnector import Reconnector
from coordinator.client.spool import Spool
from coordinator.errors import ConfigError
from coordinator.wire import client as wire
from coordinator.wire.notices import NoticeInForce
from coordinator.wording import counted

log = logging.getLogger("coordinator.client")

AGENT = f"coordinator-client/{__version__}"
"""The client's name and version, as `hello` has it."""

FLUSH_EVERY = 60.0
"""Seconds that a result waits at most before it is sent, together with others."""

_exported_rows = msgspec.json.Decoder(list[wire.ExportedRow])

_GIVE_BACK_TIMEOUT = 5.0
"""Seconds that the end of a client takes at most for giving back what it holds."""


class Client:
    """A volunteer's connection to one coordinator, for as long as the `async with` lasts.

    It connects in the background, and again whenever it is cut off; requests wait for the connection.  Its
    identity and its unacknowledged results are files in `data` (by default a per-user folder).  Leaving the
    `async with` submits all known results and gives back the rest.  `authority` is the file of the certificates
    by which alone the server's is checked; without it those of this machine are trusted.

    All requests may raise Refused (the server said no) and SessionEnded (the client will not connect again:
    it was deactivated, its secret is wrong, …).

    Raises:
        ConfigError: the address, the client id, the folder or the authority's file cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str | None = None,
        data: Path | None = None,
        flush_every: float = FLUSH_EVERY,
        backoff: Backoff | None = None,
        plaintext: bool = False,
        authority: Path | None = None,
    ) -> None:
        folder = data if data is not None else default_folder()
        self.identity = load_identity(folder, client_id)

        self._url = client_url(url)
        check_secrecy(self._url, plaintext=plaintext)
        self._trust = trust_for(self._url, authority)
        proxy_for(self._url)  # so that a wrong setting is told at once
        self._spool_folder = folder / "spool"
        self._flush_every = flush_every
        self._backoff = backoff if backoff is not None else Backoff()
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._held_buckets = HeldBuckets(self._open_spool(), self._flush_every)
        self._reconnector = self._held_buckets.reconnector = Reconnector(
            self._url,
            self.identity,
            AGENT,
            self._held_buckets,
            self._backoff,
            self._trust,
        )

        self._tasks = asyncio.TaskGroup()
        await self._tasks.__aenter__()
        self._start(self._reconnector.run(), "reconnector")
        self._start(self._held_buckets.send_due(), "outbox")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cancelled = isinstance(error, asyncio.CancelledError)
        try:
            if not cancelled:
                await self._give_back()
        finally:
            for task in self._background:
                task.cancel()
            try:
                # Only a cancellation is the group's business; other errors of the caller stay as they are.
                await self._tasks.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))
            finally:
                self._held_buckets.spool.close()

    @property
    def held(self) -> list[HeldBucket]:
        """The buckets that have not ended, oldest first."""
        return list(self._held_buckets.held.values())

    @property
    def page(self) -> str:
        """The address of this client's own page in the server's dashboard."""
        return page_url(self._url, self.identity.client_id)

    @property
    def notices(self) -> list[NoticeInForce]:
        """The operator's messages in force, as far as this client was told; each is logged when it comes."""
        return self._held_buckets.notice_board.in_force()

    async def welcome(self) -> wire.Welcome:
        """Return the server's latest welcome; waits for the first connection."""
        await self._reconnector.session()
        assert self._held_buckets.welcome is not None
        return self._held_buckets.welcome

    async def register(
        self,
        screen_name: str,
        enrolment_token: str | None = None,
        services: dict[str, dict[str, Any] | None] | None = None,
    ) -> wire.Registered:
        """Register this identity as a client; safe to repeat.  `services` maps services to join to profiles."""
        choices = [wire.Choice(name, profile) for name, profile in (services or {}).items()]
        message = wire.Register(screen_name=screen_name, enrolment_token=enrolment_token, services=choices or None)
        return await self._reconnector.request(message, wire.Registered)

    async def unregister(self) -> wire.Unregistered:
        """End the registration; held buckets are released, results and history stay."""
        return await self._reconnector.request(wire.Unregister(), wire.Unregistered)

    async def services(self) -> list[wire.ServiceCard]:
        """List all services, each with its schemas and settings and whether this client has joined."""
        return (await self._reconnector.request(wire.Services(), wire.OfferedServices)).services

    async def join(self, service: str, profile: dict[str, Any] | None = None) -> wire.Joined:
        """Join a service; the service sets the profile's shape."""
        return await self._reconnector.request(wire.Join(service=service, profile=profile), wire.Joined)

    async def leave(self, service: str) -> wire.Left:
        """Leave a service; its held buckets are released."""
        return await self._reconnector.request(wire.Leave(service=service), wire.Left)

    async def activate(self, service: str) -> wire.Activated:
        """Become active in a service again, after being deactivated for idleness."""
        return await self._reconnector.request(wire.Activate(service=service), wire.Activated)

    async def report_limited(self, service: str, retry_after: float, text: str | None = None) -> wire.Reported:
        """Report that the outside API takes nothing for `retry_after` seconds; no work comes until then."""
        message = wire.Report(
            service=service, kind="upstream_limited", retry_after=min(retry_after, 86_400.0), text=text
        )
        return await self._reconnector.request(message, wire.Reported)

    async def export(self) -> AsyncIterator[wire.ExportedRow]:
        """Go through all that the server keeps of this client, page by page."""
        after = None
        while True:
            page = await self._reconnector.request(wire.MeExport(limit=1000, after=after), wire.Exported)
            for row in _exported_rows.decode(page.rows):
                yield row
            after = page.next
            if after is None:
                return

    def buckets(self, service: str, concurrency: int = 1) -> BucketStream:
        """Return the stream of a service's buckets, for `async for`.

        At most `concurrency` buckets are held or asked for at a time; with 2 or more the next one is asked
        for while one is worked on.  A bucket counts until it is submitted, released or lost.
        """
        return self.bucket_stream(service, lambda: concurrency - self._held_buckets.count(service))

    def bucket_stream(self, service: str, wanted: Callable[[], int]) -> BucketStream:
        """Return the stream of a service's buckets; `wanted` is called for the number that should be under way.

        A service has one stream.  Calling again replaces `wanted`; after `stop` a new stream is made.
        """
        stream = self._held_buckets.stream(service)
        if stream is not None:
            stream.wanted = wanted
            stream.nudge()
            return stream

        stream = BucketStream(service, self._reconnector, wanted)
        self._held_buckets.add(stream)
        self._start(stream.run(), f"stream {service}")
        return stream

    def _open_spool(self) -> Spool:
        try:
            return Spool.open(self._spool_folder, self.identity.client_id)
        except OSError as failure:
            raise ConfigError(f"The folder {self._spool_folder} cannot be used: {failure}.") from failure

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._background.append(self._tasks.create_task(work, name=name))

    async def _give_back(self) -> None:
        try:
            async with asyncio.timeout(_GIVE_BACK_TIMEOUT):
                await self._held_buckets.give_back()
        except TimeoutError:
            log.warning("the server is too slow to say goodbye to")
        kept = sum(len(bucket.unacknowledged) for bucket in self.held)
        if kept:
            log.warning("kept on disk for the next start: %s", counted(kept, "result"))
