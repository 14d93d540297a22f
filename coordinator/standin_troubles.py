"""The troubles that the stand-in for the outside API can play, one switch each.

The forms of its answers are those that the API's documentation gives, or that callers of it have shown in public.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from coordinator.model import JsonObject

MAX_USERS_PER_PAGE = 200

PAGE = b"<!DOCTYPE html>\n<html><head><title>An error page</title></head><body>Try again later.</body></html>\n"
"""The body of an answer by something that stands before the API, such as a proxy or a load balancer."""


class ApiFault(Exception):
    """Raised to answer with another status than 200."""

    def __init__(
        self,
        status: int,
        body: JsonObject | bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status}")
        self.status = status
        self.body = body
        self.headers = headers or {}

    @classmethod
    def of(cls, status: int, code: int, message: str, headers: dict[str, str] | None = None) -> ApiFault:
        """Make the fault in the API's usual form: a list of errors with a code each."""
        return cls(status, {"errors": [{"code": code, "message": message}]}, headers)


@dataclass(slots=True)
class Troubles:
    """The switches; each may be turned while the stand-in runs.

    Args:
        protected, suspended, blocking: screen names of accounts that are so, in lower case.
        broken: screen names over which the API itself fails, in lower case.
        refusing: the answer to every request, whatever it asks for.
        down: the status of every answer, with a page that is no JSON, while the API is out.
        silent: no request is answered at all.
        clock: seconds by which the API's clock is ahead of this machine's.
        dated: whether answers have a `Date`.
        daily: requests that a caller may make in a day; 0 means any number.
        page: users of one page of a list, at most.
    """

    protected: Collection[str] = ()
    suspended: Collection[str] = ()
    blocking: Collection[str] = ()
    broken: Collection[str] = ()
    refusing: ApiFault | None = None
    down: int | None = None
    down_headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    clock: float = 0.0
    dated: bool = True
    daily: int = 0
    page: int = MAX_USERS_PER_PAGE

    def check_all(self) -> None:
        """Raise the fault that meets every request, if there is one."""
        if self.down is not None:
            raise ApiFault(self.down, PAGE, self.down_headers)
        if self.refusing is not None:
            raise self.refusing

    def check_account(self, screen_name: str, path: str) -> None:
        """Raise the fault that meets requests for this account, if there is one."""
        name = screen_name.lower()
        if name in self.suspended:
            raise ApiFault.of(403, 63, "User has been suspended.")
        if name in self.blocking:
            raise ApiFault.of(403, 136, "You have been blocked from viewing this user.")
        if name in self.protected:
            raise ApiFault(401, {"request": path, "error": "Not authorized."})
        if name in self.broken:
            raise ApiFault.of(500, 131, "Internal error.")
