"""Submit → check → store → answer.  protocol.md, "submit"

The order of the checks is the protocol's.  What this node holds is checked from memory and again in the database
when it is stored; everything else is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from coordinator.errors import BadMessage, BadResult, StaleClaim, UnassignedItems, UnknownBucket
from coordinator.flow.catalogue import Entry, refuse_strangers
from coordinator.flow.commits import Commits
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.session_registry import Held, Holder
from coordinator.model import BucketId, ClaimNumber, ItemId
from coordinator.services import DecodedResults, Item
from coordinator.store import claim_lookup
from coordinator.store.results import CheckedSubmit
from coordinator.wire.client import Stored, Submit
from coordinator.wire.codec import too_deep
from coordinator.wire.frames import MAX_DEPTH

MOST_NAMED = 1000
"""Items that an error names; a bad submit must not be answered by something larger than itself."""


@dataclass(frozen=True, slots=True)
class _Aim:
    """What a submit is about: the bucket's items, which of them its claim was given, and whether it is current."""

    entry: Entry
    items: tuple[ItemId, ...]
    given: str
    current: bool


class Intake:
    """Takes in results."""

    def __init__(self, core: Core, commits: Commits, grant: Grant, plugin_runner: PluginRunner) -> None:
        self._plugin_runner = plugin_runner
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._commits = commits
        self._grant = grant
        self._signals = core.signals
        self._counters = core.counters

    async def submit(self, submit: Submit, by: Holder) -> Stored:
        """Check one submit and store it.

        Raises:
            PeerError: it is refused; nothing of it is stored.
            Unavailable: it is not known whether it was stored; the client repeats it.
        """
        came = monotonic()
        bucket_id = bucket_of(submit.bucket_id)
        held = by.identity.held.get(bucket_id)
        aim = await self._aim(bucket_id, ClaimNumber(submit.claim), by)
        service = aim.entry.service.service_id
        try:
            rows, items = await self._read(aim, submit)
        except (UnassignedItems, BadResult):
            self._counters.refused(by.client_id, service)
            raise
        outcome = await self._commits.add(
            CheckedSubmit(
                service,
                bucket_id,
                ClaimNumber(submit.claim),
                by.client_id,
                rows.rows,
                _mask(aim.items, [item for item, _ in rows.rows]),
                submit.final,
                rows.parts,
                self._plugin_runner.keep(aim.entry, rows, items, ClaimNumber(submit.claim), by.client_id),
            )
        )
        self._grant.waits.stored.add(service, monotonic() - came)
        if not outcome.duplicate:
            self._counters.stored(
                by.client_id,
                service,
                outcome.stored,
                whole=outcome.closed and not outcome.remaining,
                seconds=None if held is None else _worked(held, came),
                labels=rows.labels,
            )
        if outcome.freed and not (rows.rows or rows.parts):
            self._counters.given_back(service)
        if outcome.closed:
            self._registry.drop(by.client_id, bucket_id, ClaimNumber(submit.claim))
            self._grant.has_room(by.client_id, service)
        if outcome.calmed:
            self._grant.unpark(by.client_id, service)
        if outcome.freed:
            self._signals.work(service)
        return Stored(
            bucket_id=str(bucket_id),
            stored=outcome.stored,
            discarded=outcome.discarded,
            remaining=outcome.remaining,
            closed=outcome.closed,
            duplicate=outcome.duplicate,
        )

    async def _aim(self, bucket_id: BucketId, claim: ClaimNumber, by: Holder) -> _Aim:
        held = by.identity.held.get(bucket_id)
        if held is not None and held.claim == claim:
            entry = self._catalogue.by_id(held.service_id)
            refuse_strangers(entry, by.identity, idle_may=True)
            return _Aim(entry, held.items, held.given, current=True)
        async with self._database.connection() as db:
            bucket = await claim_lookup.find_claim(db, bucket_id, claim)
            if bucket is None:
                raise UnknownBucket("There is no such bucket.")
            entry = self._catalogue.by_id(bucket.service_id)
            refuse_strangers(entry, by.identity, idle_may=True)
            await claim_lookup.check_owner(db, bucket, bucket_id, by.client_id)
        current = bucket.current == claim and bucket.holder == by.client_id
        return _Aim(entry, bucket.items, bucket.given, current)

    async def _read(self, aim: _Aim, submit: Submit) -> tuple[DecodedResults, Mapping[ItemId, Item]]:
        """The results, if they are of items that were handed out and have the service's shape."""
        try:
            rows, items = await self._plugin_runner.read(aim.entry, submit.results)
        except BadResult:
            # One level is the message itself.
            if too_deep(bytes(submit.results).decode(), MAX_DEPTH - 1):
                raise BadMessage("A message nests no deeper than 16.", detail={"path": "$.results"}) from None
            # Two checks come before the shape: a claim that has ended, and items that are not in the bucket.
            if not aim.current:
                raise StaleClaim("Your claim of that bucket has ended.") from None
            self._refuse_strangers(aim, aim.entry.reader.items(submit.results))
            raise
        if aim.current:
            self._refuse_strangers(aim, [item for item, _ in (*rows.rows, *rows.parts)])
        return rows, items

    def _refuse_strangers(self, aim: _Aim, items: list[ItemId]) -> None:
        if "0" not in aim.given and set(aim.items).issuperset(items):
            return
        given = {item for item, bit in zip(aim.items, aim.given, strict=True) if bit == "1"}
        strangers = [item for item in items if item not in given]
        if strangers:
            raise UnassignedItems(
                f"{len(strangers)} of the items are not in this bucket.",
                detail={"items": strangers[:MOST_NAMED], "count": len(strangers)},
            )


def _mask(items: Sequence[ItemId], chosen: Sequence[ItemId]) -> str:
    """One '0' or '1' for each of the items, '1' for the chosen ones."""
    wanted = set(chosen)
    if wanted.issuperset(items):
        return "1" * len(items)
    return "".join(["1" if item in wanted else "0" for item in items])


def _worked(held: Held, came: float) -> float:
    """Seconds that went into a submit which came then: since the one before, or since its bucket went out."""
    moments = held.holder.identity.moments_in(held.service_id)
    begun = max(held.delivered_at, moments.submitted)
    moments.submitted = max(came, moments.submitted)
    return max(0.0, came - begun)


def bucket_of(name: str) -> BucketId:
    """The id of a bucket as the database has it.

    Raises:
        UnknownBucket: it has not the form of one.
    """
    try:
        found = UUID(name)
    except ValueError:
        raise UnknownBucket("There is no such bucket.") from None
    if str(found) != name.lower():
        raise UnknownBucket("There is no such bucket.")
    return BucketId(found)
