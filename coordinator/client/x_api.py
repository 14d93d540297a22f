"""Checkers that speak the X (Twitter) API v1.1 behind one base URL.

    dm_check         can the profile's `source` send a direct message to the item's key?
    follower_check   the followers of the item's key
    following_check  the accounts which the item's key follows

Each of these functions makes a checker from its options; `close` it when done.  The API takes 180 requests
in 15 minutes and says in headers how many are left; when none are, the checker raises UpstreamLimited and sends
nothing until then.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coordinator.client.checkers import CheckFailed, UpstreamLimited
from coordinator.client.http_pool import HttpPool, HttpResponse
from coordinator.errors import ConfigError

BASE_URL = "https://api.twitter.com"
REQUESTS_PER_WINDOW = 180
RATE_LIMIT_WINDOW = 900.0
"""Seconds.  180 requests in 15 minutes are the API's documented limit for these endpoints."""

_USERS_PER_PAGE = 200
_UNREACHABLE_API_WAIT = 30.0
"""Seconds until an API that cannot be reached is asked again; the items are not at fault."""

_NO_SUCH_USER_CODES = frozenset({17, 34, 50})
"""Error codes of the API for an account that does not exist."""

_object_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


class Allowance:
    """The number of requests that the API still takes: by its headers or, where it sends none, by our own count.

    Our own limit is `requests` in `window` seconds; 0 requests means no limit.
    """

    def __init__(self, requests: int, window: float, clock: Callable[[], float] = time.time) -> None:
        self._requests = requests
        self._window = window
        self._clock = clock
        self._began = self._blocked_until = 0.0
        self._used = 0
        self._told = False

    def take(self) -> None:
        """Count one request.

        Raises:
            UpstreamLimited: there are none left.
        """
        now = self._clock()
        if now < self._blocked_until:
            raise UpstreamLimited(self._blocked_until - now)
        if now - self._began >= self._window:
            self._began, self._used = now, 0
        if self._requests and not self._told and self._used >= self._requests:
            raise UpstreamLimited(self._began + self._window - now)
        self._used += 1

    def learn(self, reply: HttpResponse) -> None:
        """Update the allowance from a reply.

        Raises:
            UpstreamLimited: the API refused the request because of its limit.
        """
        now = self._clock()
        remaining = _number(reply.headers, "x-rate-limit-remaining")
        reset = _number(reply.headers, "x-rate-limit-reset")  # seconds since 1970
        if remaining is not None:
            self._told = True
            if remaining <= 0 and reset is not None:
                self._blocked_until = reset

        if reply.status == 429:
            wait = _number(reply.headers, "retry-after")
            if wait is None:
                wait = reset - now if reset is not None else self._window
            self._blocked_until = now + max(wait, 1.0)
            raise UpstreamLimited(self._blocked_until - now)


class XApi:
    """The API behind one base URL.

    Raises:
        ConfigError: the base URL is not an HTTP URL, or a limit is not a number.
    """

    def __init__(
        self,
        base_url: str = BASE_URL,
        token: str | None = None,
        requests_per_window: int | str = REQUESTS_PER_WINDOW,
        window: float | str = RATE_LIMIT_WINDOW,
    ) -> None:
        headers = {"Accept": "application/json", "User-Agent": "coordinator-client"}
        if token:
            headers["Authorization"] = f"Bearer {token}"

        self._pool = HttpPool(base_url, headers)
        try:
            self._limit = int(requests_per_window), float(window)
        except ValueError as failure:
            raise ConfigError(f"The API's limit is given in numbers: {failure}.") from None
        self._allowances: dict[str, Allowance] = {}

    async def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any] | None:
        """Get one object of the API; None where the account does not exist.

        Raises:
            UpstreamLimited: the API takes no requests now, or cannot be reached.
            CheckFailed: it refuses this request.
            ConfigError: it refuses all of this client's requests.
        """
        allowance = self._allowances.setdefault(path, Allowance(*self._limit))  # limits are for each endpoint
        allowance.take()
        try:
            reply = await self._pool.get(path, query)
        except (OSError, http.client.HTTPException) as failure:
            raise UpstreamLimited(_UNREACHABLE_API_WAIT) from failure

        allowance.learn(reply)
        found = _object(reply.body)

        match reply.status:
            case 200 if found is not None:
                return found
            case 404 if found is not None and _unknown_user(found):
                return None
            case 401:
                raise ConfigError("The API does not accept the token.")
            case 404 if found is None:
                raise ConfigError(f"There is no {path} at the API's base URL.")
            case 503 if (wait := _number(reply.headers, "retry-after")) is not None:
                raise UpstreamLimited(wait)
            case _:
                raise CheckFailed(f"The API answered {reply.status}: {reply.body[:200]!r}")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


class DmChecker:
    """A checker that returns `{"dm": "DM" | "NON_DM" | "UNKNOWN"}`; the profile is `{source, source_id?}`."""

    def __init__(self, api: XApi) -> None:
        self._api = api

    async def __call__(self, item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        source = profile.get("source")
        if not isinstance(source, str) or not source:
            raise ConfigError('dm_check needs a profile like {"source": "your_screen_name"}.')
        query = {"source_screen_name": source, "target_screen_name": item["key"]}
        shown = await self._api.get("/1.1/friendships/show.json", query)
        if shown is None:
            return {"dm": "UNKNOWN"}
        try:
            can_dm = shown["relationship"]["source"]["can_dm"]
        except (KeyError, TypeError):
            raise CheckFailed("The API's answer has no relationship.source.can_dm.") from None
        return {"dm": "DM" if can_dm is True else "NON_DM"}

    def close(self) -> None:
        """Close the API's connections."""
        self._api.close()


class AccountListChecker:
    """A checker that returns a whole list, `{"accounts": [{"key": …}], "complete": true}`, or `{"missing": true}`."""

    def __init__(self, path: str, api: XApi) -> None:
        self._path = path
        self._api = api
        # The position in a list when the limit struck: a long list would never end if it began anew each time.
        self._interrupted: dict[str, tuple[str, list[dict[str, str]]]] = {}

    async def __call__(self, item: dict[str, Any], _profile: dict[str, Any]) -> dict[str, Any]:
        key: str = item["key"]
        cursor, accounts = self._interrupted.pop(key, ("-1", []))
        while cursor != "0":
            query = {"screen_name": key, "cursor": cursor, "count": str(_USERS_PER_PAGE)}
            try:
                page = await self._api.get(self._path, query)
            except UpstreamLimited:
                self._interrupted[key] = cursor, accounts
                raise
            if page is None:
                return {"missing": True}
            try:
                accounts += [{"key": user["screen_name"]} for user in page["users"]]
            except (KeyError, TypeError):
                raise CheckFailed("The API's answer has no users with a screen_name.") from None
            cursor = str(page.get("next_cursor_str") or page.get("next_cursor") or 0)

        return {"accounts": accounts, "complete": True}

    def close(self) -> None:
        """Close the API's connections."""
        self._api.close()


def dm_check(
    base_url: str = BASE_URL,
    token: str | None = None,
    requests_per_window: int | str = REQUESTS_PER_WINDOW,
    window: float | str = RATE_LIMIT_WINDOW,
) -> DmChecker:
    """Make a checker: can the profile's `source` send a direct message to the item's key?"""
    return DmChecker(XApi(base_url, token, requests_per_window, window))


def follower_check(
    base_url: str = BASE_URL,
    token: str | None = None,
    requests_per_window: int | str = REQUESTS_PER_WINDOW,
    window: float | str = RATE_LIMIT_WINDOW,
) -> AccountListChecker:
    """Make a checker that lists the followers of the item's key."""
    return AccountListChecker("/1.1/followers/list.json", XApi(base_url, token, requests_per_window, window))


def following_check(
    base_url: str = BASE_URL,
    token: str | None = None,
    requests_per_window: int | str = REQUESTS_PER_WINDOW,
    window: float | str = RATE_LIMIT_WINDOW,
) -> AccountListChecker:
    """Make a checker that lists the accounts which the item's key follows."""
    return AccountListChecker("/1.1/friends/list.json", XApi(base_url, token, requests_per_window, window))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        return _object_decoder.decode(body)
    except msgspec.MsgspecError:
        return None


def _unknown_user(found: dict[str, Any]) -> bool:
    """Tell whether a 404 is about the account; it is, unless its error codes say otherwise."""
    errors = found.get("errors")
    codes = {error.get("code") for error in errors if isinstance(error, dict)} if isinstance(errors, list) else set()
    return not codes or bool(codes & _NO_SUCH_USER_CODES)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        return float(headers[name])
    except (KeyError, ValueError):
        return None
