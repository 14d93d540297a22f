"""Each answer of the API, played by the stand-in, means to the checkers what the table says."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.client.checkers import CheckFailed, UpstreamLimited, UpstreamOut
from coordinator.client.x_answers import BY_CODE, BY_STATUS, PROTECTED, Meaning, Row
from coordinator.client.x_api import REFUSED_ACCOUNTS, dm_check, follower_check, following_check
from coordinator.errors import ConfigError, CoordinatorError
from coordinator.standin import SocialGraph, StandIn
from coordinator.standin_troubles import ApiFault

ITEM = {"item": 1, "key": "RoyBlunt"}
PROFILE = {"source": "me"}

ERRORS: dict[Meaning, type[CoordinatorError]] = {
    Meaning.UNCLEAR: CheckFailed,
    Meaning.LIMITED: UpstreamLimited,
    Meaning.OUT: UpstreamOut,
    Meaning.VOLUNTEER: ConfigError,
}


async def outcomes(standin: StandIn, item: dict[str, Any] = ITEM) -> list[Any]:
    """The outcome of one item at each of the three checkers: its result, or what it raises."""
    found: list[Any] = []
    for make in (dm_check, follower_check, following_check):
        check = make(standin.url, "t")
        try:
            found.append(await check(item, PROFILE))
        except CoordinatorError as failure:
            found.append(failure)
        finally:
            await check.close()
    return found


def play(row: Row) -> ApiFault:
    if row.code is None:
        return ApiFault(row.status, {"title": "No code"})
    return ApiFault.of(row.status, row.code, "In the API's words.")


@pytest.mark.parametrize("row", [*BY_CODE, *BY_STATUS], ids=lambda row: f"{row.status}-{row.code}")
async def test_a_row_means_what_the_table_says(standin: StandIn, row: Row) -> None:
    standin.troubles.refusing = play(row)
    found = await outcomes(standin)

    if row.meaning in (Meaning.MISSING, Meaning.HIDDEN):
        assert found == [{"dm": "UNKNOWN"}, {"missing": True}, {"missing": True}]
        return
    for failure in found:
        assert type(failure) is ERRORS[row.meaning], failure
        words = "its limit is reached" if row.meaning is Meaning.LIMITED else row.sentence.rstrip(".")
        assert words in str(failure)
    if row.code is not None and row.meaning is not Meaning.LIMITED:
        assert f"{row.status}, code {row.code}: In the API's words." in str(found[0])


def test_codes_stand_once_and_every_meaning_is_there() -> None:
    rows = [*BY_CODE, *BY_STATUS]
    assert len({row.code for row in BY_CODE}) == len(BY_CODE)
    assert len({row.status for row in BY_STATUS}) == len(BY_STATUS)
    assert {row.meaning for row in rows} == set(Meaning) - {Meaning.FOUND}


async def test_a_code_counts_whatever_the_status(standin: StandIn) -> None:
    standin.troubles.refusing = ApiFault.of(403, 89, "Invalid or expired token.")
    assert all(type(failure) is ConfigError for failure in await outcomes(standin))
    standin.troubles.refusing = ApiFault.of(200, 88, "Rate limit exceeded")
    assert all(type(failure) is UpstreamLimited for failure in await outcomes(standin))


async def test_accounts_that_show_nothing_are_results(standin: StandIn) -> None:
    for switch in ("protected", "suspended", "blocking"):
        setattr(standin.troubles, switch, {"royblunt"})
        assert await outcomes(standin) == [{"dm": "UNKNOWN"}, {"missing": True}, {"missing": True}]
        setattr(standin.troubles, switch, ())
    assert PROTECTED.status == 401
    assert standin.answers == {200: 3, 401: 3, 403: 6}  # three are for an account that everyone may see


async def test_protected_accounts_alone_never_end_a_checker(standin: StandIn) -> None:
    """An account that everyone may see is asked for now and then, and tells that it is not the token."""
    keys = [f"account{n}" for n in range(3 * REFUSED_ACCOUNTS)]
    standin.troubles.protected = set(keys)
    check = dm_check(standin.url, "t")
    found = [await check({"item": n, "key": key}, PROFILE) for n, key in enumerate(keys)]
    assert found == [{"dm": "UNKNOWN"}] * len(keys)
    assert standin.answers == {401: len(keys), 200: 3}
    await check.close()


async def test_a_token_that_is_shown_nothing_settles_nothing(standin: StandIn) -> None:
    standin.troubles.refusing = ApiFault(401, {"request": "/x", "error": "Not authorized."})
    for failure in await outcomes(standin):
        assert type(failure) is ConfigError
        assert "does not even show the account X to the token: The account is protected. (401: Not" in str(failure)


async def test_a_refusal_of_every_account_ends_the_checker(standin: StandIn) -> None:
    standin.troubles.refusing = ApiFault(401, {})
    check = dm_check(standin.url, "t")
    for n in range(REFUSED_ACCOUNTS - 1):
        with pytest.raises(CheckFailed):
            await check({"item": n, "key": f"a{n}"}, PROFILE)
        with pytest.raises(CheckFailed):  # the same account again says nothing new
            await check({"item": n, "key": f"a{n}"}, PROFILE)
    with pytest.raises(ConfigError, match=f"{REFUSED_ACCOUNTS} accounts in a row: .*401"):
        await check({"item": 99, "key": "another"}, PROFILE)
    await check.close()


async def test_one_answer_in_between_says_that_the_volunteer_is_welcome(standin: StandIn) -> None:
    check = dm_check(standin.url, "t")
    there = next(name for n in range(99) if SocialGraph.exists(name := f"there{n}"))
    for n in range(3 * REFUSED_ACCOUNTS):
        if n % (REFUSED_ACCOUNTS - 1) == 0:
            standin.troubles.refusing = None
            assert "dm" in await check({"item": n, "key": there}, PROFILE)
            standin.troubles.refusing = ApiFault(403, {"error": "Some reason."})
        with pytest.raises(CheckFailed, match=r"Some reason\."):
            await check({"item": n, "key": f"a{n}"}, PROFILE)
    await check.close()


@pytest.mark.parametrize("status", [200, 401, 403, 500, 502, 503])
async def test_a_page_is_an_outage(standin: StandIn, status: int) -> None:
    standin.troubles.down = status
    for failure in await outcomes(standin):
        assert type(failure) is UpstreamOut
        assert f"({status}: <!DOCTYPE html>" in str(failure)


@pytest.mark.parametrize("status", [301, 404])
async def test_a_page_says_that_the_address_is_wrong_until_the_api_has_answered(standin: StandIn, status: int) -> None:
    standin.troubles.down = status
    for failure in await outcomes(standin):
        assert type(failure) is ConfigError
        assert f"{standin.url} is wrong" in str(failure)

    standin.troubles.down = None
    check = dm_check(standin.url, "t")
    assert await check(ITEM, PROFILE)
    standin.troubles.down = status
    with pytest.raises(UpstreamOut):
        await check(ITEM, PROFILE)
    await check.close()


async def test_answers_in_the_form_of_the_next_version(standin: StandIn) -> None:
    problem = {"title": "Client Forbidden", "type": "https://api.twitter.com/2/problems/client-forbidden"}
    standin.troubles.refusing = ApiFault(403, {**problem, "detail": "Attach the app to a project."})
    for failure in await outcomes(standin):
        assert type(failure) is ConfigError
        assert "access level" in str(failure)
        assert "Attach the app" in str(failure)


async def test_an_answer_is_harmless_in_a_terminal(standin: StandIn) -> None:
    standin.troubles.refusing = ApiFault.of(401, 89, "bad\x1b[2Jtoken\u202e\n" + "x" * 1000)
    (failure, *_) = await outcomes(standin)
    assert "\\x1b[2J" in str(failure)
    assert not {"\x1b", "\u202e", "\n"} & set(str(failure))
    assert len(str(failure)) < 500
