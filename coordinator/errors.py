"""Every error that this program raises on purpose, ordered by its cause.

CoordinatorError
├── PeerError                a request of the other end of a connection is refused
│   ├── BadMessage … Exists  one class for each wire code (protocol.md, "Errors")
├── StoreError               the database
│   ├── Unavailable          cannot be reached, or did not answer in time; nothing is known to be stored
│   │   └── TooSlow          something that is only shown took longer than it may
│   ├── UnknownSchema        its schema is not one that this program knows
│   └── MigrationFailed      it refuses a statement of a migration
├── ConfigError              a setting, a flag, a folder
│   ├── NoHomeFolder         the account has none, and no folder was given
│   └── EmbeddedError        the Postgres that the program owns cannot be started or stopped
├── Refused                  (client side) the server answered a request with an error
└── ServerUnreachable        (commands) there is no server, or it went away before it answered

A PeerError carries what goes over the wire: `code`, `detail`, `retry_after` (seconds), `scope`, and, where
the connection cannot go on, `close_code`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from coordinator.model import JsonObject

Scope = Literal["connection", "client", "service", "server"]


class CoordinatorError(Exception):
    """Root of the tree."""


class PeerError(CoordinatorError):
    """A request that is answered with an `error` frame."""

    code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        detail: JsonObject | None = None,
        retry_after: float | None = None,
        scope: Scope | None = None,
        close_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = retry_after
        self.scope: Scope | None = scope
        self.close_code = close_code


class BadMessage(PeerError):
    """Not JSON, wrong shape or wrong type; `detail.path` says where."""

    code = "bad_message"


class Unsupported(PeerError):
    """Unknown type, field or version."""

    code = "unsupported"


class OutOfOrder(PeerError):
    """The request is not legal in this state of the session."""

    code = "out_of_order"


class Unauthorized(PeerError):
    """Wrong secret or token."""

    code = "unauthorized"


class Forbidden(PeerError):
    """The credentials are right, but do not allow this."""

    code = "forbidden"


class BadRegistration(PeerError):
    """A registration detail is missing or wrong; `detail.path` says which."""

    code = "bad_registration"


class NotRegistered(PeerError):
    """The client has to register first."""

    code = "not_registered"


class NotJoined(PeerError):
    """The client never joined this service, or has left it."""

    code = "not_joined"


class Outdated(PeerError):
    """The client's program is too old for the service, or not among those that it takes; `detail.minimum`."""

    code = "outdated"


class ClientDeactivated(PeerError):
    """Inactive for this service; `detail.reason` is `idle` or `admin`."""

    code = "client_deactivated"


class UnknownService(PeerError):
    """There is no service of that name."""

    code = "unknown_service"


class ServiceRevoked(PeerError):
    """The service does not exist any more."""

    code = "service_revoked"


class UnknownBucket(PeerError):
    """There is no bucket of that id."""

    code = "unknown_bucket"


class NotOwner(PeerError):
    """The claim was never this client's."""

    code = "not_owner"


class StaleClaim(PeerError):
    """The claim was this client's, and has ended."""

    code = "stale_claim"


class UnassignedItems(PeerError):
    """Results of items that are not in the bucket; `detail.items` names them."""

    code = "unassigned_items"


class BadResult(PeerError):
    """A result does not have the service's shape; `detail.errors` lists item and reason."""

    code = "bad_result"


class Conflict(PeerError):
    """Other content for the same claim and item is stored already."""

    code = "conflict"


class RateLimited(PeerError):
    """Too many messages or registrations; try again after `retry_after`."""

    code = "rate_limited"


class Quota(PeerError):
    """A limit on a number of things is reached."""

    code = "quota"


class NoWork(PeerError):
    """No bucket is ready, and the ask did not want to wait."""

    code = "no_work"


class Draining(PeerError):
    """This node drains, and hands out no more buckets."""

    code = "draining"


class NotFound(PeerError):
    """An admin request names something that does not exist."""

    code = "not_found"


class Exists(PeerError):
    """An admin request adds something that exists already."""

    code = "exists"


class ServerUnavailable(PeerError):
    """The database cannot be reached; nothing was stored."""

    code = "unavailable"


class Internal(PeerError):
    """A fault of the server; the log has more."""

    code = "internal"


class StoreError(CoordinatorError):
    """The database failed."""


class Unavailable(StoreError):
    """The database cannot be reached or did not answer within its deadline."""


class TooSlow(Unavailable):
    """A thing that is only shown was not found in its time; the database is well, as far as is known."""


class UnknownSchema(StoreError):
    """The database's schema is newer, altered or missing."""


class MigrationFailed(StoreError):
    """A statement of a migration is refused; the message says which, and nothing of its file was kept."""


class ConfigError(CoordinatorError):
    """A setting, flag or folder cannot be used; the message names it and what was expected."""


class NoHomeFolder(ConfigError):
    """This account has no home folder to look in, and none was given instead."""


class EmbeddedError(ConfigError):
    """The embedded Postgres cannot be started, shared or stopped."""


class Refused(CoordinatorError):
    """The server answered with an error.

    `code`, `message`, `detail`, `retry_after` (seconds) are those of the `error` frame.
    """

    def __init__(
        self,
        code: str,
        message: str,
        detail: JsonObject | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.detail = detail or {}
        self.retry_after = retry_after


class ServerUnreachable(CoordinatorError):
    """There is no server, or it went away before it answered."""
