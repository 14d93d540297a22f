"""Checkers that speak the X (Twitter) API v1.1 behind one base URL.

    dm_check         can the profile's `source` send a direct message to the item's key?
    follower_check   the followers of the item's key
    following_check  the accounts which the item's key follows

Each of these functions makes a checker from its options; `close` it when done.  The API takes 180 requests
in 15 minutes and says in headers how many are left; when none are, the checker raises UpstreamLimited and sends
nothing until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.client.allowance import Allowance
from coordinator.client.checkers import CheckFailed, UpstreamLimited, UpstreamOut
from coordinator.client.http_pool import HttpPool, HttpResponse
from coordinator.client.x_answers import PROTECTED, AnswerRead, Meaning, read_answer
from coordinator.errors import ConfigError

BASE_URL = "https://api.twitter.com"
REQUESTS_PER_WINDOW = 180
RATE_LIMIT_WINDOW = 900.0
"""Seconds.  180 requests in 15 minutes are the API's documented limit for these endpoints."""

REFUSED_ACCOUNTS = 10
"""Accounts over which the API may refuse a request, without an answer in between, before the volunteer is the cause."""

PROBED_ACCOUNT = "X"
"""The account that a probe is about: the API's own."""

_UNKNOWN = {"dm": "UNKNOWN"}
_FRIENDSHIP = "/1.1/friendships/show.json"
_USERS_PER_PAGE = 200

_MAX_INTERRUPTED = 1000
"""Lists whose position is remembered."""


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
        self._base_url = base_url
        try:
            self._limit = int(requests_per_window), float(window)
        except ValueError as failure:
            raise ConfigError(f"The API's limit is given in numbers: {failure}.") from None

        self._allowances: dict[str, Allowance] = {}
        self._has_answered = False
        self._refused: set[str] = set()
        self._hidden = REFUSED_ACCOUNTS
        """Accounts in a row that were not shown to the token, by answers that may be about the token itself."""
        self.date: str | None = None

    async def get(self, path: str, query: Mapping[str, str], account: str) -> dict[str, Any] | None:
        """Get one object of the API; None where the account does not exist or does not show it.

        `account` is the one that the request is about.

        Raises:
            UpstreamLimited: the API takes no requests now.
            UpstreamOut: it is out, or cannot be reached.
            CheckFailed: it refuses this request.
            ConfigError: it refuses all of this client's requests.
        """
        verdict = await self._ask(path, query)
        if verdict.meaning is Meaning.HIDDEN and verdict.status == PROTECTED.status:
            self._hidden += 1
            if self._hidden > REFUSED_ACCOUNTS:
                await self._check_token(path, query, account)
        elif verdict.meaning in (Meaning.FOUND, Meaning.MISSING):
            self._hidden = 0
        return self._judge(verdict, account)

    async def probe(self, path: str, query: Mapping[str, str]) -> str:
        """Make one request for an account that everyone may see; say what came of it, and how many are left.

        Raises:
            UpstreamLimited, UpstreamOut, CheckFailed, ConfigError: as `get` does.
        """
        verdict = await self._ask(path, query)
        if verdict.meaning is Meaning.HIDDEN:
            raise ConfigError(f"The API does not even show the account {PROBED_ACCOUNT} to the token: {verdict.why}")
        self._judge(verdict, PROBED_ACCOUNT)
        left = [limit.left for limit in self._allowances[path].latest if limit.remaining is not None]
        return "; ".join([f"{self._base_url} accepts the token", *left])

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def _check_token(self, path: str, query: Mapping[str, str], account: str) -> None:
        """Find out by an account that everyone may see whether it is the token to which nothing is shown.

        Raises:
            ConfigError: it is.
        """
        await self.probe(path, {name: PROBED_ACCOUNT if value == account else value for name, value in query.items()})
        self._hidden = 0

    async def _ask(self, path: str, query: Mapping[str, str]) -> AnswerRead:
        """Make one request; raises UpstreamLimited, UpstreamOut and ConfigError as `get` does."""
        allowance = self._allowances.setdefault(path, Allowance(*self._limit))  # limits are for each endpoint
        await allowance.take()
        try:
            reply = await self._pool.get(path, query)
        except BaseException:
            allowance.give_up()
            raise

        self.date = reply.headers.get("date")
        retry_after = allowance.learn(reply)
        verdict = read_answer(reply)
        if verdict.meaning is Meaning.OUT:
            self._check_address(reply, verdict, path)
            raise UpstreamOut(verdict.why, retry_after)
        return verdict

    def _judge(self, verdict: AnswerRead, account: str) -> dict[str, Any] | None:
        """Return what was found, or raise what the answer means."""
        match verdict.meaning:
            case Meaning.VOLUNTEER:
                raise ConfigError(verdict.why)
            case Meaning.LIMITED:
                raise UpstreamLimited(self._limit[1], verdict.why)
            case Meaning.UNCLEAR:
                self._refused.add(account)
                if len(self._refused) >= REFUSED_ACCOUNTS:
                    raise ConfigError(
                        f"The API has refused the requests for {REFUSED_ACCOUNTS} accounts in a row: {verdict.why}"
                    )
                raise CheckFailed(verdict.why)

        self._has_answered = True
        self._refused.clear()
        return verdict.found if verdict.meaning is Meaning.FOUND else None

    def _check_address(self, reply: HttpResponse, verdict: AnswerRead, path: str) -> None:
        """Take a page that says "not here" as a wrong address, unless the API has answered before.

        Raises:
            ConfigError: it is one.
        """
        elsewhere = 300 <= reply.status < 400 or reply.status == 404
        if elsewhere and not verdict.found and not self._has_answered:
            raise ConfigError(f"The API's base URL {self._base_url} is wrong: there is no {path}. {verdict.why}")


class DmChecker:
    """A checker that returns `{"dm": "DM" | "NON_DM" | "UNKNOWN"}`; the profile is `{source, source_id?}`."""

    def __init__(self, api: XApi) -> None:
        self._api = api

    async def __call__(self, item: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
        shown = await self._api.get(_FRIENDSHIP, self._query(profile, item["key"]), item["key"])
        if shown is None:
            return dict(_UNKNOWN)
        try:
            can_dm = shown["relationship"]["source"]["can_dm"]
        except (KeyError, TypeError):
            raise CheckFailed("The API's answer has no relationship.source.can_dm.") from None
        return {"dm": "DM" if can_dm is True else "NON_DM"}

    def unanswered(self) -> dict[str, Any]:
        """Return the result for an account over which the API fails, while it answers for others."""
        return dict(_UNKNOWN)

    @property
    def date(self) -> str | None:
        """The date of the API's latest answer."""
        return self._api.date

    async def probe(self, profile: dict[str, Any]) -> str:
        """Make one request, to see whether the API accepts the token; raises as a check."""
        return await self._api.probe(_FRIENDSHIP, self._query(profile, PROBED_ACCOUNT))

    def _query(self, profile: dict[str, Any], account: str) -> dict[str, str]:
        source = profile.get("source")
        if not isinstance(source, str) or not source:
            raise ConfigError('dm_check needs a profile like {"source": "your_screen_name"}.')
        return {"source_screen_name": source, "target_screen_name": account}

    async def close(self) -> None:
        """Close the API's connections."""
        await self._api.close()


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
                page = await self._api.get(self._path, query, key)
            except (UpstreamLimited, UpstreamOut):
                self._remember(key, cursor, accounts)
                raise
            if page is None:
                return {"missing": True}
            try:
                accounts += [{"key": user["screen_name"]} for user in page["users"]]
            except (KeyError, TypeError):
                raise CheckFailed("The API's answer has no users with a screen_name.") from None
            cursor = str(page.get("next_cursor_str") or page.get("next_cursor") or 0)

        return {"accounts": accounts, "complete": True}

    @property
    def date(self) -> str | None:
        """The date of the API's latest answer."""
        return self._api.date

    async def probe(self, profile: dict[str, Any]) -> str:
        """Make one request, to see whether the API accepts the token; raises as a check."""
        return await self._api.probe(self._path, {"screen_name": PROBED_ACCOUNT, "cursor": "-1", "count": "1"})

    def _remember(self, key: str, cursor: str, accounts: list[dict[str, str]]) -> None:
        self._interrupted[key] = cursor, accounts
        if len(self._interrupted) > _MAX_INTERRUPTED:  # its bucket may have been lost since
            del self._interrupted[next(iter(self._interrupted))]

    async def close(self) -> None:
        """Close the API's connections."""
        await self._api.close()


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
