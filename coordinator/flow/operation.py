"""What admins do, one step a request.  protocol.md, "Admin channel" """

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from coordinator import credentials
from coordinator.errors import NotFound, UnknownBucket
from coordinator.flow.catalogue import Entry
from coordinator.flow.core import Core
from coordinator.flow.grant import Grant
from coordinator.flow.intake import bucket_of
from coordinator.flow.membership import Memberships
from coordinator.flow.release import Releases
from coordinator.flow.rows import (
    Fields,
    cursor,
    moment_of,
    moment_or_none,
    number,
    page,
    result_page,
    time_text,
)
from coordinator.flow.service_life import service_row
from coordinator.model import BucketId, ClientId, ServiceId
from coordinator.store import (
    activity,
    buckets,
    claims,
    clients,
    export,
    nodes,
    statistics,
    tokens,
)
from coordinator.store.statement_stats import StatementSnapshot
from coordinator.store.statistics import ServiceTotals
from coordinator.wire import admin as wire

LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
"""Later than all that has been noted."""


class Operation:
    """The steps behind the admin channel."""

    def __init__(self, core: Core, grant: Grant, releases: Releases, memberships: Memberships) -> None:
        self._memberships = memberships
        self._node = core.settings.node_name
        self._database = core.database
        self._catalogue = core.catalogue
        self._grant = grant
        self._releases = releases
        self._signals = core.signals
        self._counters = core.counters

    # Services

    async def service_list(self, request: wire.ServiceList) -> Fields:
        """All services, by name."""
        rows = sorted((service_row(entry) for entry in self._catalogue.all()), key=lambda row: row["service"])
        names = [row for row in rows if request.after is None or row["service"] > request.after]
        return page(names[: request.limit], request.limit, lambda row: row["service"], len(names))

    async def service_show(self, request: wire.ServiceShow) -> Fields:
        """One service, with its items and buckets by state."""
        entry = self._catalogue.named(request.service)
        async with self._database.connection() as db:
            states = await statistics.state(db)
        return {**service_row(entry), "counts": _counts(entry, states)}

    # Results and statistics

    async def result_list(self, request: wire.ResultList) -> Fields:
        """Results of a service with their origin, in the order of their claims."""
        entry = self._catalogue.named(request.service)
        async with self._database.connection() as db:
            return await result_page(
                db,
                entry.service.service_id,
                request,
                key=request.key,
                client=request.client_id,
                since=moment_or_none(request.since, "$.since"),
                until=moment_or_none(request.until, "$.until"),
            )

    async def result_export(self, request: wire.ResultExport) -> Fields:
        """One page of all results of a service; the format is the asker's affair."""
        entry = self._catalogue.named(request.service)
        after = (0, 0) if request.after is None else tuple(map(number, cursor(request.after, 2)))
        async with self._database.connection() as db:
            found = await export.page(
                db, entry.service.service_id, entry.service.name, (after[0], after[1]), request.limit
            )
        return {
            "rows": msgspec.Raw(f"[{','.join(found.rows)}]".encode()),
            "next": None if found.last is None else f"{found.last[0]}|{found.last[1]}",
        }

    async def stats(self, request: wire.Stats) -> Fields:
        """Each service's items and buckets by state, what waits longest, and what this node asks of the database."""
        async with self._database.connection() as db:
            states = await statistics.state(db)
            await statistics.add_fronts(db, states)
        return {
            "services": [
                {**_counts(entry, states), "oldest": _oldest(entry, states)}
                for entry in sorted(self._catalogue.all(), key=lambda entry: entry.service.name)
            ],
            "database": _load(self._database.load.snapshot()),
        }

    # Buckets

    async def bucket_list(self, request: wire.BucketList) -> Fields:
        """Buckets by id, open or done."""
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        after = None if request.after is None else bucket_of(request.after)
        async with self._database.connection() as db:
            rows = await buckets.page(db, after, request.limit, service, request.state, request.client_id)
        return {
            "rows": [self._bucket_row(row) for row in rows],
            "next": str(rows[-1]["bucket_id"]) if len(rows) == request.limit else None,
        }

    async def bucket_show(self, request: wire.BucketShow) -> Fields:
        """One bucket with its items that are still to be settled."""
        bucket_id = _bucket(request.bucket_id)
        async with self._database.connection() as db:
            row = await buckets.show(db, bucket_id)
        if row is None:
            raise NotFound("There is no such bucket.")
        return {**self._bucket_row(row), "items": row["items"]}

    def _bucket_row(self, row: Fields) -> Fields:
        return {
            "bucket_id": str(row["bucket_id"]),
            "service": self._catalogue.by_id(row["service_id"]).service.name,
            "state": row["state"],
            "client_id": row["client_id"],
            "claim": row["claim"],
            "attempts": row["attempts"],
            "remaining": row["remaining"],
            "touched_at": None if row["touched_at"] is None else time_text(row["touched_at"]),
        }

    async def bucket_release(self, request: wire.BucketRelease) -> Fields:
        """Take a bucket from its holder."""
        try:
            return {"released": await self._releases.take(_bucket(request.bucket_id))}
        except UnknownBucket as failure:
            raise NotFound(failure.message) from None

    # Clients

    async def client_list(self, request: wire.ClientList) -> Fields:
        """Clients by id."""
        await self._counters.flush(self._database)
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        async with self._database.connection() as db:
            rows = await clients.page(
                db, request.after or "", request.limit, request.state, service, request.search, request.flagged
            )
        return {
            "rows": [_client_row(row) for row in rows],
            "next": rows[-1]["client_id"] if len(rows) == request.limit else None,
        }

    async def client_show(self, request: wire.ClientShow) -> Fields:
        """Everything about one client."""
        await self._counters.flush(self._database)
        async with self._database.connection() as db:
            row = await clients.find_with_services(db, ClientId(request.client_id))
            if row is None:
                raise NotFound(f"There is no client {request.client_id!r}.")
            held = await buckets.page(db, None, 1000, None, None, request.client_id)
        return {
            **_client_row(row),
            "profiles": {one["service"]: one["profile"] for one in row["services"]},
            "holds": [self._bucket_row(one) for one in held],
        }

    async def client_deactivate(self, request: wire.ClientDeactivate) -> Fields:
        """Take a client's work away, in one service or wholly."""
        client = ClientId(request.client_id)
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        async with self._database.connection() as db:
            done = await clients.deactivate(db, client, service, request.reason or "by an admin")
        if not done:
            raise NotFound(f"There is no client {request.client_id!r}" + (" in that service." if service else "."))
        # The claim statement looks at the database, so nothing new goes out; what is out is taken, then all are told.
        await self._grant.all_delivered()
        released = await self._releases.free_client(client, service, claims.DEACTIVATED, "deactivated")
        await self._tell_changed(client)
        return {"deactivated": 1, "released": released}

    async def client_activate(self, request: wire.ClientActivate) -> Fields:
        """Undo a deactivation."""
        client = ClientId(request.client_id)
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        async with self._database.connection() as db:
            done = await clients.reactivate(db, client, service)
        if not done:
            raise NotFound(f"There is no client {request.client_id!r}" + (" in that service." if service else "."))
        await self._tell_changed(client)
        return {"activated": 1}

    async def _tell_changed(self, client: ClientId) -> None:
        """The other nodes hear of it soon; on this one it is in force when the admin is answered."""
        self._signals.tell("client", client=client)
        await self._memberships.reload(client)

    async def client_forget_secret(self, request: wire.ClientForgetSecret) -> Fields:
        """Let whoever registers next bind a secret of its own; who has the old one is not registered any more."""
        client = ClientId(request.client_id)
        async with self._database.connection() as db:
            if not await clients.forget_secret(db, client):
                raise NotFound(f"There is no client {request.client_id!r}.")
        try:
            await self._grant.all_delivered()
            released = await self._releases.free_client(client, None, claims.UNREGISTERED, "released")
        finally:
            self._signals.tell("client", client=client)
        await self._memberships.reload(client)
        return {"forgotten": 1, "released": released}

    # Tokens, activity, nodes

    async def token_issue(self, request: wire.TokenIssue) -> Fields:
        """Make a token; this answer is the only place where it stands."""
        made = credentials.make_token()
        async with self._database.connection() as db:
            await tokens.issue(
                db, made.token_id, made.hash, request.role, request.label, request.expires_in, request.uses
            )
        return {"token_id": made.token_id, "token": made.token, "role": request.role, "label": request.label}

    async def token_list(self, request: wire.TokenList) -> Fields:
        """Tokens, without the tokens themselves."""
        async with self._database.connection() as db:
            rows = await tokens.page(db, request.after or "", request.limit)
        return {
            "rows": [_with_times(row) for row in rows],
            "next": rows[-1]["token_id"] if len(rows) == request.limit else None,
        }

    async def token_revoke(self, request: wire.TokenRevoke) -> Fields:
        """End a token and the sessions that live by it."""
        async with self._database.connection() as db:
            if not await tokens.revoke(db, request.token_id):
                raise NotFound("There is no such token, or it is revoked already.")
        self._signals.tell("token", token=request.token_id)
        return {"revoked": 1}

    async def activity_list(self, request: wire.ActivityList) -> Fields:
        """The activity log, newest first."""
        until = moment_or_none(request.until, "$.until")
        before = (until or LATEST, 0 if until else 2**62)
        if request.after is not None:
            moment, line = cursor(request.after, 2)
            before = min(before, (moment_of(moment, "$.after"), number(line)))
        async with self._database.connection() as db:
            rows = await activity.page(
                db,
                before,
                request.limit,
                target=request.client_id,
                action=request.action,
                since=moment_or_none(request.since, "$.since"),
            )
        return {
            "rows": [{k: v for k, v in _with_times(row).items() if k != "activity_id"} for row in rows],
            "next": f"{rows[-1]['at'].isoformat()}|{rows[-1]['activity_id']}" if len(rows) == request.limit else None,
        }

    async def node_list(self, request: wire.NodeList) -> Fields:
        """The starts of nodes."""
        after = 0 if request.after is None else number(request.after)
        async with self._database.connection() as db:
            rows = await nodes.page(db, after, request.limit)
        return {
            "rows": [_with_times(row) for row in rows],
            "next": str(rows[-1]["boot"]) if len(rows) == request.limit else None,
        }

    async def node_drain(self, request: wire.NodeDrain) -> Fields:
        """Let a node hand out no more, and end."""
        name = request.node or self._node
        async with self._database.connection() as db:
            if not any(row["node"] == name and row["state"] == "live" for row in await nodes.page(db, 0, 100_000)):
                raise NotFound(f"No node {name!r} runs.")
        self._signals.tell("drain", node=name)
        return {"draining": name}


_WORSE = ("ok", "watched", "flagged")


def _client_row(row: Fields) -> Fields:
    worst = max(row["services"], key=lambda one: _WORSE.index(one["health"]), default=None)
    return {
        "client_id": row["client_id"],
        "screen_name": row["screen_name"],
        "state": row["state"],
        "connected": row["connected"],
        "health": worst["health"] if worst else "ok",
        "reason": worst["reason"] if worst else None,
        "services": [
            {
                **{k: v for k, v in one.items() if k not in ("client_id", "inactive", "profile")},
                "active": one["joined"] and one["inactive"] is None,
                "last_access": time_text(one["last_access"]),
            }
            for one in row["services"]
        ],
    }


def _with_times(row: Fields) -> Fields:
    return {k: time_text(v) if isinstance(v, datetime) else v for k, v in row.items()}


def _bucket(name: str) -> BucketId:
    try:
        return bucket_of(name)
    except UnknownBucket as failure:
        raise NotFound(failure.message) from None


def _load(load: StatementSnapshot) -> Fields:
    return {
        "statements": [
            {
                "statement": one.statement,
                "calls": one.calls,
                "rows": one.rows,
                "milliseconds": round(one.seconds * 1000, 3),
            }
            for one in load.statements
        ],
        "pool_waits": load.pool_waits,
        "pool_waited": round(load.pool_seconds, 6),
    }


def _counts(entry: Entry, states: Mapping[ServiceId, ServiceTotals]) -> Fields:
    """Items by where they are, and open buckets by state."""
    one = states.get(entry.service.service_id) or ServiceTotals(0, 0, 0)
    return {
        "service": entry.service.name,
        "state": entry.service.state,
        "items": one.total,
        "waiting": one.waiting,
        "ready": one.ready,
        "claimed": one.claimed,
        "dead": one.dead,
        "settled": one.settled,
        "quarantined": one.quarantined,
        **{f"{state}_buckets": count for state, count in one.buckets.items()},
    }


def _oldest(entry: Entry, states: Mapping[ServiceId, ServiceTotals]) -> list[Fields]:
    """For each priority, since when its oldest unclaimed item waits, and until when it can be overtaken at most."""
    one = states.get(entry.service.service_id) or ServiceTotals(0, 0, 0)
    return [
        {
            "priority": priority,
            "since": time_text(oldest.since),
            "overtaken_until": time_text(entry.service.settings.overtaken_until(oldest.rank_at)),
        }
        for priority, oldest in sorted(one.oldest.items())
    ]
