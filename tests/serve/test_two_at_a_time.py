"""Requests at the same time: of one client, of two, and of many that come and go."""

from __future__ import annotations

import asyncio

from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Server, Volunteer, secret_of
from tests.serve.tools import CHOICE, configure, ids, join_again, no_push, results, value


async def test_two_clients_with_the_same_identity_registering(server: Server) -> None:
    peers = await server.client(), await server.client()
    for peer in peers:
        await peer.hello("twin")
    answers = await asyncio.gather(
        *(peer.ask_for("register", screen_name="twin", services=CHOICE) for peer in peers for _ in range(3))
    )
    assert {answer["type"] for answer in answers} == {"registered"}
    assert await value(server.database, "SELECT count(*) FROM client") == 1


async def test_two_clients_of_one_name_and_different_secrets_registering(server: Server) -> None:
    for round_ in range(5):
        peers = await server.client(), await server.client()
        for peer, secret in zip(peers, ("a" * 32, "b" * 32), strict=True):
            await peer.ok("hello", protocol=1, client_id=f"name{round_}", secret=secret)
        answers = await asyncio.gather(
            *(peer.ask_for("register", screen_name="name", services=CHOICE) for peer in peers)
        )
        assert sorted(answer["type"] for answer in answers) == ["error", "registered"]
        loser = peers[0 if answers[0]["type"] == "error" else 1]
        assert {answer.get("code") for answer in answers} == {None, "unauthorized"}
        assert await loser.close_code() == 4500


async def test_two_clients_with_the_same_identity_updating(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    twin, _ = await join_again(server, "volunteer")
    await admin.add(4)
    bucket = await volunteer.bucket()
    half, rest = ids(bucket)[:2], ids(bucket)[2:]
    answers = await asyncio.gather(
        volunteer.submit(bucket, items=half, final=False), twin.submit(bucket, items=rest, final=False)
    )
    assert [answer["stored"] for answer in answers] == [2, 2]
    assert sorted(answer["remaining"] for answer in answers) == [0, 2]
    assert await results(server.database) == 4


async def test_two_clients_with_the_same_identity_updating_the_same(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    twin, _ = await join_again(server, "volunteer")
    for round_ in range(20):
        await admin.add(3, prefix=f"round{round_}_")
        bucket = await volunteer.bucket()
        answers = await asyncio.gather(volunteer.submit(bucket), twin.submit(bucket))
        assert sorted(answer["duplicate"] for answer in answers) == [False, True], answers
        assert sorted(answer["stored"] for answer in answers) == [0, 3]


async def test_two_clients_with_the_same_identity_one_unregistering_while_the_other_updates(
    server: Server, admin: Admin
) -> None:
    for round_ in range(10):
        await admin.add(3, prefix=f"round{round_}_")
        before = await results(server.database)
        worker = await server.volunteer(f"twin{round_}")
        leaver, _ = await join_again(server, f"twin{round_}")
        bucket = await worker.bucket()
        stored, gone = await asyncio.gather(worker.submit(bucket), leaver.ok("unregister"))
        if stored["type"] == "stored":
            assert await results(server.database) == before + 3
        else:
            assert stored["code"] in ("not_registered", "stale_claim", "not_joined"), stored
            assert gone["released"] == 1
            assert (await worker.push("bucket_lost"))["reason"] == "released"
            assert await results(server.database) == before
            finisher = await server.volunteer(f"finisher{round_}")
            await finisher.submit(await finisher.bucket())
        assert await worker.refused("ask", service="dm_check", count=1) == "not_registered"


async def test_unregister_of_one_session_takes_the_buckets_of_the_other(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    twin, _ = await join_again(server, "volunteer")
    await admin.add(3)
    bucket = await volunteer.bucket()
    assert (await twin.ok("unregister"))["released"] == 1
    lost = await volunteer.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "released")
    assert (await volunteer.submit(bucket))["code"] == "not_registered"
    await no_push(twin)


async def test_two_clients_joining_at_the_same_instant(server: Server, admin: Admin) -> None:
    await admin.add(400)
    ada, bob = await asyncio.gather(server.volunteer("ada"), server.volunteer("bob"))
    first, second = await asyncio.gather(ada.bucket(), bob.bucket())
    assert first["bucket_id"] != second["bucket_id"]
    assert not set(ids(first)) & set(ids(second))


async def test_two_clients_joining_at_different_times(server: Server, admin: Admin) -> None:
    await admin.add(400)
    ada = await server.volunteer("ada")
    first = await ada.bucket()
    bob = await server.volunteer("bob")
    second = await bob.bucket()
    third = await ada.bucket()
    taken = ids(first) + ids(second) + ids(third)
    assert len(taken) == len(set(taken)) == 400
    for client, bucket in ((ada, first), (bob, second), (ada, third)):
        assert (await client.submit(bucket))["closed"] is True
    assert await results(server.database) == 400


async def test_two_clients_making_and_claiming_at_once(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=3)
    server = await start_server()
    admin = await server.admin()
    clients = await asyncio.gather(server.volunteer("one"), server.volunteer("two"))

    async def work(client: Volunteer) -> list[int]:
        done: list[int] = []
        while True:
            answer = await client.ask_for("ask", service="dm_check", count=2, wait=False)
            if answer["type"] == "error":
                assert answer["code"] == "no_work"
                return done
            for _ in range(answer["count"]):
                bucket = await client.push("bucket")
                assert (await client.submit(bucket))["closed"] is True
                done += ids(bucket)

    await admin.add(100)
    done = [item for items in await asyncio.gather(*map(work, clients)) for item in items]
    assert len(done) == len(set(done)) == 100
    assert await results(database) == 100


async def test_clients_coming_and_going_quickly(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=5)
    server = await start_server()
    admin, steady = await server.admin(), await server.volunteer("steady")
    await admin.add(100)

    async def come_and_go(name: str) -> None:
        for visit in range(5):
            peer, welcome = await join_again(server, name)
            if not welcome["registered"]:
                await peer.ok("register", screen_name=name, services=CHOICE)
            asked = peer.send("ask", service="dm_check", count=1)
            if visit % 2:
                await asked
            peer.cut()

    await asyncio.gather(*(come_and_go(f"fly{n}") for n in range(6)))
    settled = 0
    while settled < 100:
        await steady.ok("ask", service="dm_check", count=1)
        settled += (await steady.submit(await steady.push("bucket")))["stored"]
    assert await results(database) == 100
    assert await value(database, "SELECT count(*) FROM bucket WHERE state <> 'done'") == 0


async def test_new_items_added_while_buckets_are_made(start_server: StartServer, database: Database) -> None:
    await configure(database, bucket_size=7)
    server = await start_server()
    admin, client = await server.admin(), await server.volunteer("client")

    async def add() -> None:
        for part in range(20):
            await admin.add(10, prefix=f"part{part}_")

    async def work() -> int:
        settled = 0
        while settled < 200:
            await client.ok("ask", service="dm_check", count=1)
            settled += (await client.submit(await client.push("bucket")))["stored"]
        return settled

    _, settled = await asyncio.gather(add(), within(work(), 20))
    assert settled == 200
    assert await value(database, "SELECT count(DISTINCT item_id) FROM result") == 200


async def test_a_client_with_another_secret_is_not_that_client(server: Server, volunteer: Volunteer) -> None:
    thief = await server.client()
    answer = await thief.ask_for("hello", protocol=1, client_id="volunteer", secret=secret_of("thief"))
    assert answer["code"] == "unauthorized"
    assert await thief.close_code() == 4500
    await volunteer.ok("unregister")  # the secret stays bound
    thief = await server.client()
    assert await thief.refused("hello", protocol=1, client_id="volunteer", secret=secret_of("thief")) == "unauthorized"
