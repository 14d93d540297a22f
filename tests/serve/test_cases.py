"""Each case of a client once: registration, fetching, updating, too slow."""

from __future__ import annotations

import asyncio
from time import monotonic

from coordinator.store.pool import Database
from tests.conftest import StartServer
from tests.harness import Admin, Server, Volunteer, submission
from tests.serve.tools import (
    CHOICE,
    RawPeer,
    Swallower,
    configure,
    eventually,
    ids,
    join_again,
    no_push,
    results,
    value,
    works_well,
)

# Registration


async def test_registration_for_the_first_time(server: Server) -> None:
    client = await server.client()
    welcome = await client.hello("first")
    assert welcome["registered"] is False
    assert [one["joined"] for one in welcome["services"] if one["service"] == "dm_check"] == [False]
    registered = await client.ok("register", screen_name="The.First", services=CHOICE)
    assert (registered["type"], registered["client_id"]) == ("registered", "first")
    (mine,) = [one for one in registered["services"] if one["service"] == "dm_check"]
    assert (mine["joined"], mine["active"]) == (True, True)
    _, again = await join_again(server, "first")
    assert again["registered"] is True


async def test_registration_again_after_unregister(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    assert await volunteer.ok("unregister") == {"type": "unregistered", "ref": volunteer._refs, "released": 0}
    assert await volunteer.refused("ask", service="dm_check", count=1) == "not_registered"
    registered = await volunteer.ok("register", screen_name="again")
    assert [one["joined"] for one in registered["services"] if one["service"] == "dm_check"] == [False]
    await volunteer.ok("join", service="dm_check", profile={"source": "volunteer"})
    await works_well(server, admin, volunteer)


async def test_registration_again_without_unregister_is_success(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(1)
    bucket = await volunteer.bucket()
    registered = await volunteer.ok("register", screen_name="volunteer")
    assert [one["joined"] for one in registered["services"] if one["service"] == "dm_check"] == [True]
    assert (await volunteer.submit(bucket))["closed"] is True


async def test_registration_without_a_detail(server: Server) -> None:
    client = await server.client()
    await client.hello("bare")
    answer = await client.ask_for("register")
    assert (answer["code"], answer["detail"]["path"]) == ("bad_registration", "$.screen_name")
    assert (await client.ok("register", screen_name="bare"))["client_id"] == "bare"


async def test_registration_with_a_wrong_detail(server: Server) -> None:
    client = await server.client()
    await client.hello("wrong")
    for fields, path in (
        ({"screen_name": "has space"}, "$.screen_name"),
        ({"screen_name": ""}, "$.screen_name"),
        ({"screen_name": "x" * 65}, "$.screen_name"),
        ({"screen_name": "line\n"}, "$.screen_name"),
        ({"screen_name": 7}, "$.screen_name"),
        ({"screen_name": "good", "services": "dm_check"}, "$.services"),
        ({"screen_name": "good", "services": [{"service": 5}]}, "$.services[0].service"),
        (
            {"screen_name": "good", "services": [{"service": "dm_check", "profile": {"source": 5}}]},
            "$.services[0].profile.source",
        ),
        ({"screen_name": "good", "services": [{"service": "dm_check"}]}, "$.services[0].profile"),
    ):
        answer = await client.ask_for("register", **fields)
        assert (answer.get("code"), answer.get("detail", {}).get("path")) == ("bad_registration", path), answer
    answer = await client.ask_for("register", screen_name="good", services=[{"service": "nowhere"}])
    assert answer["code"] == "unknown_service"
    answer = await client.ask_for("register", screen_name="good", colour="red")
    assert answer["code"] == "unsupported"
    _, welcome = await join_again(server, "wrong")
    assert welcome["registered"] is False


async def test_registration_with_a_wrong_enrolment_token(start_server: StartServer) -> None:
    server = await start_server(registration="token")
    client = await server.client()
    await client.hello("outsider")
    answer = await client.ask_for("register", screen_name="outsider")
    assert (answer["code"], answer["detail"]["path"]) == ("bad_registration", "$.enrolment_token")
    assert await client.refused("register", screen_name="outsider", enrolment_token="guess") == "unauthorized"
    token = await server.token("enrolment")
    await client.ok("register", screen_name="outsider", enrolment_token=token)
    await client.ok("register", screen_name="outsider")  # again with the same secret is success


async def test_a_flood_of_registrations_is_closed_and_others_notice_nothing(start_server: StartServer) -> None:
    server = await start_server(registrations_per_minute=10)
    admin, neighbour = await server.admin(), await server.volunteer("neighbour")
    flooder = await server.client()
    await flooder.hello("flooder")
    answers = [flooder.send("register", screen_name="flooder") for _ in range(70)]
    assert await flooder.close_code() == 4429
    given = [answer.result() for answer in answers if answer.done()]
    refused = [one for one in given if one["type"] == "error"]
    assert len(given) - len(refused) == 9  # ten at once, and the neighbour was one of them
    assert {one["code"] for one in refused} == {"rate_limited"}
    assert len(refused) == 50
    assert all(one["retry_after"] > 0 for one in refused)
    await works_well(server, admin, neighbour)


async def test_unregister_with_a_wrong_detail(volunteer: Volunteer) -> None:
    for wrong in ("somebody", "", 7, ["volunteer"]):
        answer = await volunteer.ask_for("unregister", client_id=wrong)
        assert (answer["code"], answer["detail"]["path"]) == ("bad_registration", "$.client_id")
    assert await volunteer.refused("unregister", client="volunteer") == "unsupported"
    assert (await volunteer.ok("ask", service="dm_check", count=1))["count"] == 1
    assert (await volunteer.ok("unregister", client_id="volunteer"))["released"] == 0


async def test_client_gone_before_the_answer_to_its_registration(server: Server) -> None:
    client = await RawPeer.open(server)
    await client.hello("hasty", register=False)
    client.say("register", screen_name="hasty")
    client.writer.close()

    async def known() -> bool:
        return bool(await value(server.database, "SELECT registered FROM client WHERE client_id = 'hasty'"))

    await eventually(known, "the registration was lost")
    _, welcome = await join_again(server, "hasty")
    assert welcome["registered"] is True


async def test_unregister_releases_what_is_held_and_the_history_stays(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=ids(bucket)[:1], final=False)
    assert (await volunteer.ok("unregister"))["released"] == 1
    other = await server.volunteer("other")
    assert sorted(ids(await other.bucket())) == sorted(ids(bucket)[1:])
    rows = (await admin.ok("result.list", service="dm_check"))["rows"]
    assert [row["client_id"] for row in rows] == ["volunteer"]


# Fetching


async def test_fetch_one(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(3)
    bucket = await volunteer.bucket()
    assert sorted(item["key"] for item in bucket["items"]) == ["account0", "account1", "account2"]
    assert bucket["attempt"] == 1
    assert (bucket["service"], bucket["dead_after"], bucket["release_after"]) == ("dm_check", 7200.0, 900.0)
    assert "ref" not in bucket


async def test_fetch_several(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=2)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("several")
    await admin.add(6)
    assert (await client.ok("ask", service="dm_check", count=3))["count"] == 3
    buckets = [await client.push("bucket") for _ in range(3)]
    assert sorted(item for bucket in buckets for item in ids(bucket)) == sorted(
        {item for bucket in buckets for item in ids(bucket)}
    )
    assert sum(len(ids(bucket)) for bucket in buckets) == 6
    assert len({bucket["bucket_id"] for bucket in buckets}) == 3


async def test_fetch_too_many_is_clamped(volunteer: Volunteer) -> None:
    asked = await volunteer.ok("ask", service="dm_check", count=1000)
    assert (asked["count"], asked["pending"], asked["limit"]) == (10, 10, 10)


async def test_fetch_unregistered(server: Server) -> None:
    client = await server.client()
    await client.hello("nobody")
    assert await client.refused("ask", service="dm_check", count=1) == "not_registered"


async def test_fetch_when_none_is_available_waits(admin: Admin, volunteer: Volunteer) -> None:
    asked = await volunteer.ok("ask", service="dm_check", count=1)
    assert (asked["count"], asked["pending"]) == (1, 1)
    await admin.add(1)
    assert len(ids(await volunteer.push("bucket"))) == 1


async def test_fetch_when_none_is_available_and_not_waiting(admin: Admin, volunteer: Volunteer) -> None:
    answer = await volunteer.ask_for("ask", service="dm_check", count=3, wait=False)
    assert answer["code"] == "no_work"
    assert answer["retry_after"] > 0
    await admin.add(1)
    await no_push(volunteer)  # it was not kept
    assert (await volunteer.ok("ask", service="dm_check", count=1, wait=False))["count"] == 1
    await volunteer.push("bucket")


# Updating


async def test_update_of_an_own_bucket(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(5)
    bucket = await volunteer.bucket()
    stored = await volunteer.submit(bucket)
    del stored["ref"]
    assert stored == {
        "type": "stored",
        "bucket_id": bucket["bucket_id"],
        "stored": 5,
        "discarded": 0,
        "remaining": 0,
        "closed": True,
        "duplicate": False,
    }
    assert await results(server.database) == 5


async def test_update_of_a_bucket_not_owned(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(2)
    bucket = await volunteer.bucket()
    other = await server.volunteer("other")
    assert (await other.submit(bucket))["code"] == "not_owner"
    assert await results(server.database) == 0
    assert (await volunteer.submit(bucket))["stored"] == 2


async def test_update_by_an_unregistered_client_of_its_own_bucket(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(2)
    bucket = await volunteer.bucket()
    await volunteer.ok("unregister")
    assert (await volunteer.submit(bucket))["code"] == "not_registered"
    assert await results(server.database) == 0


async def test_update_by_an_unregistered_client_of_a_bucket_not_owned(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(2)
    bucket = await volunteer.bucket()
    nobody = await server.client()
    await nobody.hello("nobody")
    assert (await nobody.submit(bucket))["code"] == "not_registered"
    assert (await volunteer.submit(bucket))["stored"] == 2


async def test_partial_update(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(5)
    bucket = await volunteer.bucket()
    part = await volunteer.submit(bucket, items=ids(bucket)[:2], final=False)
    assert (part["stored"], part["remaining"], part["closed"]) == (2, 3, False)
    last = await volunteer.submit(bucket, items=ids(bucket)[2:4], final=True)
    assert (last["stored"], last["remaining"], last["closed"]) == (2, 1, True)
    other = await server.volunteer("other")
    rest = await other.bucket()
    assert ids(rest) == ids(bucket)[4:]
    assert rest["bucket_id"] == bucket["bucket_id"]
    assert rest["claim"] > bucket["claim"]


async def test_a_partial_update_of_the_last_items_closes(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(2)
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=ids(bucket)[:1], final=False)
    last = await volunteer.submit(bucket, items=ids(bucket)[1:], final=False)
    assert (last["remaining"], last["closed"]) == (0, True)


async def test_update_of_an_item_that_is_not_in_the_bucket(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(2)
    bucket = await volunteer.bucket()
    answer = await volunteer.submit(bucket, items=[*ids(bucket), 999_999])
    assert (answer["code"], answer["detail"]["items"]) == ("unassigned_items", [999_999])
    assert await results(server.database) == 0
    assert (await volunteer.submit(bucket))["stored"] == 2


async def test_client_gone_before_the_answer_to_its_update(server: Server, admin: Admin) -> None:
    waiting = await server.volunteer("waiting")
    for round_ in range(10):
        await admin.add(4, prefix=f"round{round_}_")
        name = f"hasty{round_}"
        hasty = await server.volunteer(name)
        bucket = await hasty.bucket()
        await waiting.ok("ask", service="dm_check", count=1)
        hasty.send("submit", **submission(bucket, items=ids(bucket)[:3], final=False))
        await hasty._writer
        hasty.cut()
        rest = await waiting.push("bucket")
        assert ids(rest) == ids(bucket)[3:]
        assert (await waiting.submit(rest))["closed"] is True
        assert await results(server.database) == (round_ + 1) * 4


async def test_client_gone_before_the_answer_to_an_update_of_the_whole(server: Server, admin: Admin) -> None:
    await admin.add(4)
    hasty = await server.volunteer("hasty")
    bucket = await hasty.bucket()
    hasty.send("submit", **submission(bucket))
    await hasty._writer
    hasty.cut()
    again, _ = await join_again(server, "hasty")
    repeat = await again.submit(bucket)
    assert (repeat["type"], repeat["duplicate"], repeat["closed"]) == ("stored", True, True)
    assert await results(server.database) == 4


async def test_a_bucket_never_updated_is_marked_dead_and_then_released(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, dead_after=1, release_after=1)
    server = await start_server()
    admin, slow, other = await server.admin(), await server.volunteer("slow"), await server.volunteer("other")
    await admin.add(2)
    bucket = await slow.bucket()
    begun = monotonic()
    await other.ok("ask", service="dm_check", count=1)
    dead = await slow.push("bucket_dead")
    assert (dead["bucket_id"], dead["claim"], dead["release_after"]) == (bucket["bucket_id"], bucket["claim"], 1)
    assert 0.9 < monotonic() - begun < 2.5
    lost = await slow.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "released")
    assert 1.9 < monotonic() - begun < 4.5
    again = await other.push("bucket")
    assert (again["bucket_id"], again["attempt"]) == (bucket["bucket_id"], 2)
    assert (await slow.submit(bucket))["code"] == "stale_claim"
    assert (await other.submit(again))["stored"] == 2


async def test_an_update_of_a_dead_bucket_counts_and_revives_it(start_server: StartServer, database: Database) -> None:
    await configure(database, dead_after=1, release_after=60)
    server = await start_server()
    admin, slow = await server.admin(), await server.volunteer("slow")
    await admin.add(3)
    bucket = await slow.bucket()
    await slow.push("bucket_dead")
    part = await slow.submit(bucket, items=ids(bucket)[:1], final=False)
    assert (part["stored"], part["remaining"], part["closed"]) == (1, 2, False)
    begun = monotonic()
    (row,) = (await admin.ok("bucket.list", client_id="slow"))["rows"]
    assert row["state"] == "claimed"
    again = await slow.push("bucket_dead")
    assert again["claim"] == bucket["claim"]
    assert monotonic() - begun > 0.8  # each settled item starts the time anew
    assert (await slow.submit(bucket, items=ids(bucket)[1:]))["closed"] is True


async def test_each_settled_item_starts_the_time_anew(start_server: StartServer, database: Database) -> None:
    await configure(database, dead_after=1.5, release_after=60)
    server = await start_server()
    admin, steady = await server.admin(), await server.volunteer("steady")
    await admin.add(4)
    bucket = await steady.bucket()
    for item in ids(bucket)[:3]:
        await asyncio.sleep(0.9)
        stored = await steady.submit(bucket, items=[item], final=False)
        assert stored["stored"] == 1
    assert steady.pushes.empty()


async def test_a_claim_ends_after_max_claim_time_whatever_its_progress(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, max_claim_time=2, dead_after=60)
    server = await start_server()
    admin, slow = await server.admin(), await server.volunteer("slow")
    await admin.add(40)
    begun = monotonic()
    bucket = await slow.bucket()
    while slow.pushes.empty():  # it settles one item after the other, so that it is never dead
        assert monotonic() - begun < 5
        item = bucket["items"].pop()["item"]
        await slow.submit(bucket, items=[item], final=False)
        await asyncio.sleep(0.2)
    lost = await slow.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "expired")
    assert 1.9 < monotonic() - begun < 4
    assert (await slow.submit(bucket))["code"] == "stale_claim"
    other = await server.volunteer("other")
    assert (await other.bucket())["bucket_id"] == bucket["bucket_id"]


async def test_who_is_cut_off_and_comes_back_has_no_more_time_for_a_claim(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, max_claim_time=2)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")
    await admin.add(4)
    begun = monotonic()
    bucket = await client.bucket()
    held = [{"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}]
    await asyncio.sleep(1)
    client.cut()
    again, welcome = await join_again(server, "client", holds=held)
    assert welcome["recollected"]["regranted"] == [bucket["bucket_id"]]
    await again.push("bucket")
    assert (await again.push("bucket_lost"))["reason"] == "expired"
    assert monotonic() - begun < 3.5


async def test_a_client_silent_for_longer_than_the_ping_timeout_is_gone(start_server: StartServer) -> None:
    server = await start_server(ping_interval=0.3, ping_timeout=0.3)
    admin, waiting = await server.admin(), await server.volunteer("waiting")
    proxy = await Swallower.open(server)
    silent = await Volunteer.open(f"{proxy.url}/v1/client", server.stack)
    await silent.hello("silent")
    await silent.ok("register", screen_name="silent", services=CHOICE)
    await admin.add(2)
    bucket = await silent.bucket()
    await waiting.ok("ask", service="dm_check", count=1)
    begun = monotonic()
    proxy.swallow()
    again = await waiting.push("bucket")
    assert monotonic() - begun < 1.5
    assert (again["bucket_id"], again["attempt"]) == (bucket["bucket_id"], 2)
    silent.cut()
