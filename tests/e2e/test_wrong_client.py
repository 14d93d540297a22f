"""A client that was wrong for an hour, as an admin deals with it by the commands of the program."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Message, Server, Volunteer
from tests.serve.tools import configure, execute

pytestmark = pytest.mark.long

SIZE = 6


async def checked(peer: Volunteer, database: Database, dm: str, at: datetime) -> Message:
    """A bucket that the client has settled, at that time."""
    bucket = await peer.bucket()
    assert (await peer.submit(bucket, dm))["closed"]
    await execute(database, "UPDATE result SET at = $2 WHERE claim_id = $1", bucket["claim"], at)
    began = at - timedelta(minutes=2)
    await execute(
        database, "UPDATE claim SET begun_at = $2, ended_at = $3 WHERE claim_id = $1", bucket["claim"], began, at
    )
    return bucket


async def story(server: Server, key: str) -> tuple[str, list[Message]]:
    """An item's state, and its results, newest first."""
    (shown,) = await server.command("item", "show", key)
    (service,) = shown["services"]
    return service["state"], service["results"]


async def test_an_hour_of_wrong_results_is_found_undone_and_checked_again(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=SIZE)
    server = await start_server()
    await (await server.admin()).add(10 * SIZE, services=["dm_check"])
    wrong, right = await server.volunteer("wrong"), await server.volunteer("right")
    now = datetime.now(UTC)
    since, until = now - timedelta(hours=1), now
    before = await checked(wrong, database, "NON_DM", since - timedelta(hours=1))
    hour = [since + timedelta(minutes=10 * n + 5) for n in range(6)]
    bad = [await checked(wrong, database, "DM", at) for at in hour]
    for at in hour[:3]:
        await checked(right, database, "NON_DM", at)

    by_whom = "--client-id", "wrong", "--since", since.isoformat(), "--until", until.isoformat()
    found = await server.command("result", "list", "dm_check", *by_whom)
    origin = {item["key"]: bucket for bucket in bad for item in bucket["items"]}
    assert {row["key"] for row in found} == origin.keys()
    assert [row["value"] for row in found] == [{"dm": "DM"}] * len(origin)
    assert {datetime.fromisoformat(row["at"]) for row in found} == set(hour)

    undo = "result", "invalidate", *by_whom, "--requeue"
    (dry,) = await server.command(*undo, "--dry-run")
    assert (dry["count"], dry["invalidation_id"]) == (len(origin), None)
    (done,) = await server.command(*undo, "--no-dry-run", "--yes")
    assert done["count"] == len(origin)
    after = await server.command("result", "list", "dm_check")
    assert {row["key"] for row in after if not row["valid"]} == origin.keys()
    assert len(after) == 10 * SIZE

    seen: set[str] = set()
    while seen != origin.keys():
        bucket = await right.bucket()
        assert (await right.submit(bucket, "NON_DM"))["closed"]
        seen |= {item["key"] for item in bucket["items"]}

    for first in (bucket["items"][0]["key"] for bucket in bad):
        state, results = await story(server, first)
        assert state == "settled"
        told = [(row["client_id"], row["value"], row["valid"]) for row in results]
        assert told == [("right", {"dm": "NON_DM"}, True), ("wrong", {"dm": "DM"}, False)]
        of_wrong, bucket = results[1], origin[first]
        assert (of_wrong["bucket_id"], of_wrong["claim"]) == (bucket["bucket_id"], bucket["claim"])
        assert since <= datetime.fromisoformat(of_wrong["at"]) < until
    state, results = await story(server, before["items"][0]["key"])
    assert (state, [(row["client_id"], row["valid"]) for row in results]) == ("settled", [("wrong", True)])
