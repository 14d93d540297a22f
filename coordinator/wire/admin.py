"""The messages of the admin channel (`/v1/admin`), one type each.  protocol.md, "Admin channel"

Each is answered by `ok` with the fields that its docstring names, or by `error`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from coordinator.wire.frames import Answer, Name, PageSize, Request, ServerCard, Text, Time

Role = Literal["admin", "operator"]
Keys = Annotated[list[str], Meta(min_length=1, max_length=10_000)]
Priority = Annotated[int, Meta(ge=0, le=200)]
"""100 is normal; lower is sooner."""

After = Annotated[str, Meta(max_length=512)]
"""The `next` of the page before."""


class AdminHello(Request, tag="hello"):
    """The first message of the admin channel."""

    protocol: int
    token: Annotated[str, Meta(max_length=256)]


class AdminWelcome(Answer, tag="welcome", kw_only=True):
    role: Role
    label: str
    server: ServerCard
    protocol: int


class ServiceList(Request, tag="service.list"):
    """`rows` of `service, plugin, title, state, settings`; `next`."""

    limit: PageSize = 100
    after: After | None = None


class ServiceShow(Request, tag="service.show"):
    """`service, plugin, title, state, settings`, and `counts` of items and open buckets."""

    service: Name


class ServiceAdd(Request, tag="service.add"):
    """Adds a service; the items that it selects come to wait in it: `service, plugin, title, state, settings`."""

    service: Name
    plugin: Name
    title: Text | None = None
    settings: dict[str, Any] | None = None


class ServiceConfigure(Request, tag="service.configure"):
    """Changes some settings, null takes one back to its default: `service, plugin, title, state, settings`."""

    service: Name
    settings: dict[str, Any]


class ServicePause(Request, tag="service.pause"):
    """Hands out nothing more; asks wait, submits count: `service, plugin, title, state, settings`."""

    service: Name


class ServiceResume(Request, tag="service.resume"):
    """Undoes `service.pause`: `service, plugin, title, state, settings`."""

    service: Name


class ServiceRevoke(Request, tag="service.revoke"):
    """Ends a service, its history stays: `released` buckets, and `service, plugin, title, state, settings`."""

    service: Name


class ServiceRestore(Request, tag="service.restore"):
    """Undoes `service.revoke`: `service, plugin, title, state, settings`."""

    service: Name


class ItemAdd(Request, tag="item.add"):
    """Adds items to the catalogue and to services: `added, known, refused: [{index, key, reason}]`.

    `items` are objects with a `key` and attributes of any name; each is checked on its own.
    """

    items: Annotated[list[Any], Meta(max_length=10_000)]
    services: list[Name] | None = None
    priority: Priority = 100


class ItemPrioritize(Request, tag="item.prioritize"):
    """Puts items into buckets at once: `prioritized`, `unknown: [key]`."""

    keys: Keys
    service: Name
    priority: Priority = 0


class ItemDelete(Request, tag="item.delete"):
    """Removes items with all their results: `deleted`, `unknown: [key]`."""

    keys: Keys


class ItemWaiting(Request, tag="item.waiting"):
    """Items that are not in a bucket, in rank order: `rows` of `service, item, key, priority, since`."""

    service: Name
    limit: PageSize = 100
    after: After | None = None


class ItemShow(Request, tag="item.show"):
    """One item in every service: `item, key, attributes, services: [{service, state, results}]`."""

    key: str


class ItemQuarantined(Request, tag="item.quarantined"):
    """Items that broke clients: `rows` of `service, item, key, attempts, since`."""

    service: Name | None = None
    limit: PageSize = 100
    after: After | None = None


class ItemRetry(Request, tag="item.retry"):
    """Lets quarantined items wait again: `retried`, `unknown: [key]`."""

    keys: Keys
    service: Name


class BucketList(Request, tag="bucket.list"):
    """`rows` of `bucket_id, service, state, client_id, claim, attempts, remaining, touched_at`."""

    service: Name | None = None
    state: Literal["ready", "claimed", "dead", "done"] | None = None
    client_id: Name | None = None
    limit: PageSize = 100
    after: After | None = None


class BucketShow(Request, tag="bucket.show"):
    """The fields of `bucket.list` and `items: [{item, key}]`, those still to be settled."""

    bucket_id: str


class BucketRelease(Request, tag="bucket.release"):
    """Takes a bucket from its holder: `released` (0 if nobody held it)."""

    bucket_id: str


class ResultList(Request, tag="result.list"):
    """`rows` of `service, item, key, value, client_id, session_id, bucket_id, claim, at, valid`."""

    service: Name
    key: str | None = None
    client_id: Name | None = None
    since: Time | None = None
    until: Time | None = None
    limit: PageSize = 100
    after: After | None = None


class ResultExport(Request, tag="result.export"):
    """All results, page by page: `rows` as `result.list` has them; whoever asks writes them in that `format`."""

    service: Name
    format: Literal["jsonl", "csv"]
    limit: Annotated[int, Meta(ge=1, le=20_000)] = 1000
    after: After | None = None


class ResultInvalidate(Request, tag="result.invalidate"):
    """Takes back all that came through some claims: `count` of results, `invalidation_id` (`null` when dry)."""

    dry_run: bool
    requeue: bool
    client_id: Name | None = None
    service: Name | None = None
    since: Time | None = None
    until: Time | None = None


class ResultReinstate(Request, tag="result.reinstate"):
    """Undoes `result.invalidate`: `count` of results."""

    invalidation_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]


class ClientList(Request, tag="client.list"):
    """`rows` of `client_id, screen_name, state, connected, health, reason, services: [...]`."""

    state: Literal["active", "inactive", "deactivated", "unregistered"] | None = None
    service: Name | None = None
    flagged: bool | None = None
    search: Text | None = None
    limit: PageSize = 100
    after: After | None = None


class ClientShow(Request, tag="client.show"):
    """One row of `client.list`, with `profiles` and what the client holds."""

    client_id: Name


class ClientDeactivate(Request, tag="client.deactivate"):
    """Takes a client's work away, in one service or wholly: `deactivated`, `released`."""

    client_id: Name
    service: Name | None = None
    reason: Text | None = None


class ClientActivate(Request, tag="client.activate"):
    """Undoes `client.deactivate`: `activated`."""

    client_id: Name
    service: Name | None = None


class ClientForgetSecret(Request, tag="client.forget_secret"):
    """Lets whoever registers next bind a secret of its own: `forgotten`, `released`."""

    client_id: Name


class TokenIssue(Request, tag="token.issue"):
    """Makes a token, shown this once: `token_id, token, role, label`."""

    role: Literal["admin", "operator", "viewer", "enrolment"]
    label: Text
    expires_in: Annotated[float, Meta(gt=0)] | None = None
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class TokenList(Request, tag="token.list"):
    """`rows` of `token_id, role, label, created_at, expires_at, uses_left, revoked`."""

    limit: PageSize = 100
    after: After | None = None


class TokenRevoke(Request, tag="token.revoke"):
    """Ends a token and the sessions that use it: `revoked`."""

    token_id: Annotated[str, Meta(max_length=64)]


class ActivityList(Request, tag="activity.list"):
    """`rows` of `at, who, action, target, outcome`, newest first."""

    client_id: Name | None = None
    action: Text | None = None
    since: Time | None = None
    until: Time | None = None
    limit: PageSize = 100
    after: After | None = None


class NodeList(Request, tag="node.list"):
    """`rows` of `node, boot, state, lease_until`."""

    limit: PageSize = 100
    after: After | None = None


class NodeDrain(Request, tag="node.drain"):
    """Lets a node (this one, unless named) hand out no more and end: `draining`."""

    node: Name | None = None


class Stats(Request, tag="stats"):
    """`services: [{service, state, items, waiting, ready, claimed, dead, settled, quarantined, oldest}]`, `database`.

    Each with its open buckets, too: `ready_buckets, claimed_buckets, dead_buckets`.
    """


class LimitsShow(Request, tag="limits"):
    """The `limits` of the server, as in the client channel's `welcome`, and what one node `carries`.

    `carries: {machine, sessions, memory_per_session, asks_per_second, items_per_second, items_per_second_made,
    limited_by}`, of which `limited_by` has a sentence for each that has a limit.
    """


class Health(Request, tag="health"):
    """`live`, `ready`, `database: {reachable, version}`, `draining`."""


class Ok(Answer, tag="ok"):
    """What a request of the admin channel was answered; the fields stand beside `type` and `ref`."""


REQUESTS: tuple[type[Request], ...] = (
    AdminHello,
    ServiceList,
    ServiceShow,
    ServiceAdd,
    ServiceConfigure,
    ServicePause,
    ServiceResume,
    ServiceRevoke,
    ServiceRestore,
    ItemAdd,
    ItemPrioritize,
    ItemDelete,
    ItemWaiting,
    ItemShow,
    ItemQuarantined,
    ItemRetry,
    BucketList,
    BucketShow,
    BucketRelease,
    ResultList,
    ResultExport,
    ResultInvalidate,
    ResultReinstate,
    ClientList,
    ClientShow,
    ClientDeactivate,
    ClientActivate,
    ClientForgetSecret,
    TokenIssue,
    TokenList,
    TokenRevoke,
    ActivityList,
    NodeList,
    NodeDrain,
    Stats,
    LimitsShow,
    Health,
)

ADMIN_ONLY: frozenset[type[Request]] = frozenset(
    {
        TokenIssue,
        TokenList,
        TokenRevoke,
        ItemDelete,
        ServiceAdd,
        ServiceRevoke,
        ServiceRestore,
        ClientForgetSecret,
        NodeDrain,
    }
)
"""Requests that an operator's token is not enough for."""


class Refusal(Struct, frozen=True):
    """One item that `item.add` did not take."""

    index: int
    key: str | None
    reason: str


class LimitedBy(Struct, frozen=True):
    """What sets the limit of each figure of `Capacity` with this name, in a sentence."""

    sessions: str
    asks_per_second: str
    items_per_second: str
    items_per_second_made: str


class Capacity(Struct, frozen=True):
    """What one node carried on a known class of machine, `carries` of `limits`; nothing keeps a node to it.

    `sessions` is what a node takes by default, `memory_per_session` the bytes of an idle one.  Items are settled:
    `items_per_second` while buckets are ready, `items_per_second_made` while all of these are made, too.
    """

    machine: str
    sessions: int
    memory_per_session: int
    asks_per_second: int
    items_per_second: int
    items_per_second_made: int
    limited_by: LimitedBy
