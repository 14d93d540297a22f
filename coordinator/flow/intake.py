"""Submit → check → store → answer.  protocol.md, "submit"

The order of the checks is the protocol's.  A bucket that is held here is checked from memory, and again in the
database when its results are stored; all others are looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from coordinator.errors import BadMessage, BadResult, StaleClaim, UnassignedItems, Unavailable, UnknownBucket
from coordinator.flow.catalogue import Entry, refuse_strangers
from coordinator.flow.commits import Commits
from coordinator.flow.core import Core
from coordinator.flow.discoveries import Discoveries
from coordinator.flow.grant import Grant
from coordinator.flow.plugin_runner import PluginRunner
from coordinator.flow.session_registry import HeldClaim, Holder
from coordinator.flow.signal_types import ClientChanged
from coordinator.model import BucketId, ClaimNumber, ClientId, ItemId, JsonObject, Service, ServiceId
from coordinator.services import DecodedResults, Item
from coordinator.services.reader import MAX_NAMED_ERRORS, ResultErrors
from coordinator.store import claim_lookup
from coordinator.store.results import CheckedSubmit, SubmitOutcome
from coordinator.wire.client import Stored, Submit
from coordinator.wire.codec import too_deep
from coordinator.wire.frames import MAX_DEPTH

REFUSAL_EVENT_PAUSE = 10.0
"""Seconds after a refused submit became an event in which others of that client and service do not."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The bucket of a submit: its service and items, which of them its claim was given, and whether that is current."""

    entry: Entry
    items: tuple[ItemId, ...]
    given: str
    current: bool


class Intake:
    """Takes in results."""

    def __init__(
        self, core: Core, commits: Commits, grant: Grant, plugin_runner: PluginRunner, discoveries: Discoveries
    ) -> None:
        self._discoveries = discoveries
        self._plugin_runner = plugin_runner
        self._database = core.database
        self._catalogue = core.catalogue
        self._registry = core.registry
        self._commits = commits
        self._grant = grant
        self._signals = core.signals
        self._counters = core.counters
        self._events = core.events

    async def submit(self, submit: Submit, by: Holder) -> Stored:
        """Check one submit and store it.

        Raises:
            PeerError: it is refused; nothing of it is stored.
            Unavailable: it is not known whether it was stored; the client repeats it.
        """
        bucket_id, claim = bucket_of(submit.bucket_id), ClaimNumber(submit.claim)
        held = by.identity.held.get(bucket_id)
        if held is None or held.claim != claim:
            return await self._submit(submit, bucket_id, claim, by)

        held.submits += 1
        try:
            return await self._submit(submit, bucket_id, claim, by)
        except Unavailable:
            held.failed_at = monotonic()
            raise
        finally:
            held.submits -= 1

    async def _submit(self, submit: Submit, bucket_id: BucketId, claim: ClaimNumber, by: Holder) -> Stored:
        came = monotonic()
        held = by.identity.held.get(bucket_id)
        target = await self._find_target(bucket_id, claim, by)
        service = target.entry.service.service_id
        try:
            rows, items, mask = await self._read(target, submit, by.client_id)
        except (UnassignedItems, BadResult) as refusal:
            self._counters.refused(by.client_id, service)
            self._tell_refused(target.entry.service, bucket_id, by, refusal)
            raise

        keep = self._plugin_runner.keep(target.entry, rows, items, claim, by.client_id)
        discovery = self._discoveries.of(target.entry, rows, items, claim)
        outcome = await self._commits.add(
            CheckedSubmit(
                service,
                bucket_id,
                claim,
                by.client_id,
                rows.rows,
                mask,
                submit.final,
                rows.parts,
                target.entry.service.settings.max_parts,
                keep if discovery is None else discovery.behind(keep),
            )
        )
        self._grant.waits.stored.add(service, monotonic() - came)

        if not outcome.duplicate:
            self._counters.stored(
                by.client_id,
                service,
                outcome.settled,
                whole=outcome.closed and not outcome.remaining,
                seconds=None if held is None else _seconds_worked(held, came),
                labels=rows.labels,
            )
        if outcome.freed:
            self._counters.given_back(service)
        self._tell_others(service, bucket_id, claim, by, outcome)
        if discovery is not None:
            discovery.tell()
        return Stored(
            bucket_id=str(bucket_id),
            stored=outcome.stored,
            discarded=outcome.discarded,
            remaining=outcome.remaining,
            closed=outcome.closed,
            duplicate=outcome.duplicate,
        )

    def _tell_refused(
        self, service: Service, bucket: BucketId, by: Holder, refusal: UnassignedItems | BadResult
    ) -> None:
        """Emit the event of a submit that was refused, with the first reason; of many in a row not of each."""
        moments, now = by.identity.moments_in(service.service_id), monotonic()
        if now < moments.refusal_told + REFUSAL_EVENT_PAUSE:
            return

        moments.refusal_told = now
        first = next(iter((refusal.detail or {}).get("errors", ())), None)
        text = str(refusal) if first is None else f"{first['path']}: {first['reason']}"
        self._events.emit("refused", text, client=by.client_id, service=service.name, bucket=str(bucket))

    def _tell_others(
        self, service: ServiceId, bucket_id: BucketId, claim: ClaimNumber, by: Holder, outcome: SubmitOutcome
    ) -> None:
        """Let those go on that waited for this: the client itself, and whoever may have what is left over."""
        if outcome.closed:
            self._registry.drop(by.client_id, bucket_id, claim)
            if outcome.freed:
                self._grant.lost(by.client_id, service)
            else:
                self._grant.holds_less(by.client_id, service)
        if outcome.calmed:
            self._grant.wait_ended(by.client_id, service)
            if not self._signals.alone:
                self._signals.tell(ClientChanged(by.client_id))
        if outcome.freed:
            self._signals.work(service)

    async def _find_target(self, bucket_id: BucketId, claim: ClaimNumber, by: Holder) -> _Target:
        """Find the bucket that a submit names, in memory if it is held here."""
        held = by.identity.held.get(bucket_id)
        if held is not None and held.claim == claim:
            entry = self._catalogue.by_id(held.service_id)
            refuse_strangers(entry, by.identity, idle_may=True)
            return _Target(entry, held.items, held.given, current=True)

        async with self._database.connection() as db:
            bucket = await claim_lookup.find_claim(db, bucket_id, claim)
            if bucket is None:
                raise UnknownBucket("There is no such bucket.")
            entry = self._catalogue.by_id(bucket.service_id)
            refuse_strangers(entry, by.identity, idle_may=True)
            await claim_lookup.check_owner(db, bucket, bucket_id, by.client_id)
        current = bucket.current == claim and bucket.holder == by.client_id
        return _Target(entry, bucket.items, bucket.given, current)

    async def _read(
        self, target: _Target, submit: Submit, client: ClientId
    ) -> tuple[DecodedResults, Mapping[ItemId, Item], str]:
        """Read the results; refuse those of items that were not handed out, or not of the service's shape.

        Returns them, their items as far as the plugin gets these, and the mask of those that they settle.
        """
        try:
            rows, items = await self._plugin_runner.read(target.entry, submit.results, client)
        except BadResult:
            # One level is the message itself.
            if too_deep(bytes(submit.results).decode(), MAX_DEPTH - 1):
                raise BadMessage("A message nests no deeper than 16.", detail={"path": "$.results"}) from None
            # Two checks come before the shape: a claim that has ended, and items that are not in the bucket.
            if not target.current:
                raise StaleClaim("Your claim of that bucket has ended.") from None
            self._refuse_unassigned(target, target.entry.reader.items(submit.results))
            raise
        _refuse_large(target.entry, rows, len(bytes(submit.results)))
        settled = tuple([item for item, _ in rows.rows])
        if settled == target.items and not rows.parts and "0" not in target.given:
            return rows, items, target.given

        if target.current:
            self._refuse_unassigned(target, [*settled, *(item for item, _ in rows.parts)])
        return rows, items, _mask(target.items, settled)

    def _refuse_unassigned(self, target: _Target, items: list[ItemId]) -> None:
        """Refuse results of items that the claim was not given."""
        if "0" not in target.given and set(target.items).issuperset(items):
            return

        given = {item for item, bit in zip(target.items, target.given, strict=True) if bit == "1"}
        strangers = [item for item in items if item not in given]
        if strangers:
            detail: JsonObject = {"items": strangers[:MAX_NAMED_ERRORS], "count": len(strangers)}
            if len(strangers) > MAX_NAMED_ERRORS:
                detail["more"] = len(strangers) - MAX_NAMED_ERRORS
            raise UnassignedItems(f"{len(strangers)} of the items are not in this bucket.", detail=detail)


def _refuse_large(entry: Entry, rows: DecodedResults, size: int) -> None:
    """Refuse results that are larger than the service takes; `size` are the bytes of all of them."""
    most = entry.service.settings.max_result_bytes
    if size <= most:
        return

    errors = ResultErrors(entry.service.name)
    for place, (item, value) in enumerate((*rows.rows, *rows.parts)):
        if len(value) * 4 > most and (taken := len(value.encode())) > most:
            errors.add(item, f"$.results[{place}]", f"it has {taken} bytes, {most} at most are taken")
    if errors:
        raise errors.error()


def _mask(items: Sequence[ItemId], chosen: Sequence[ItemId]) -> str:
    """Write one '0' or '1' for each of the items, '1' for the chosen ones."""
    marked = set(chosen)
    if marked.issuperset(items):
        return "1" * len(items)
    return "".join(["1" if item in marked else "0" for item in items])


def _seconds_worked(held: HeldClaim, came: float) -> float:
    """Count the seconds that went into a submit which came then: since the one before, or since its bucket went out."""
    moments = held.holder.identity.moments_in(held.service_id)
    begun = max(held.delivered_at, moments.submitted)
    moments.submitted = max(came, moments.submitted)
    return max(0.0, came - begun)


def bucket_of(name: str) -> BucketId:
    """Return the id of a bucket as the database has it.

    Raises:
        UnknownBucket: the name has not the form of an id.
    """
    try:
        found = UUID(name)
    except ValueError:
        raise UnknownBucket("There is no such bucket.") from None
    if str(found) != name.lower():
        raise UnknownBucket("There is no such bucket.")
    return BucketId(found)
