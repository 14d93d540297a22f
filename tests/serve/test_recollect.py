"""A client that was cut off gets back what nobody else has taken."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from coordinator.app import Node
from coordinator.config import Settings
from coordinator.store.pool import Database
from tests.bounded import within
from tests.conftest import StartServer
from tests.harness import Admin, Message, Server, Volunteer
from tests.serve.tools import configure, eventually, join_again, no_push, reset, value


def ids(bucket: Message) -> list[int]:
    return sorted(item["item"] for item in bucket["items"])


def hold(bucket: Message) -> dict[str, object]:
    return {"bucket_id": bucket["bucket_id"], "claim": bucket["claim"]}


async def cut(server: Server, peer: Volunteer) -> None:
    """End a connection; returns when the server has freed what it held."""
    reset(peer)

    async def free() -> bool:
        return not await value(
            server.database,
            "SELECT count(*) FROM session WHERE client_id = $1 AND ended_at IS NULL",
            peer.client_id,
        )

    await eventually(free, "not freed")


async def test_hello_with_holds_brings_the_bucket_back(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=ids(bucket)[:1], final=False)
    await cut(server, volunteer)
    again, welcome = await join_again(server, "volunteer", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [bucket["bucket_id"]], "dropped": []}
    back = await again.push("bucket")
    assert (back["bucket_id"], back["attempt"]) == (bucket["bucket_id"], 1)  # not counted as an attempt
    assert back["claim"] > bucket["claim"]
    assert ids(back) == ids(bucket)[1:]
    assert (await again.submit(bucket, items=ids(bucket)[1:]))["code"] == "stale_claim"
    assert (await again.submit(bucket, items=ids(bucket)[:1]))["duplicate"] is True
    assert (await again.submit(back))["closed"] is True
    row = (await admin.ok("client.show", client_id="volunteer"))["services"][0]
    assert row["disconnects"] == 0  # the cost that the disconnect brought is taken back


async def test_hello_with_an_empty_list_brings_it_back_too(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await cut(server, volunteer)
    again, welcome = await join_again(server, "volunteer", holds=[])
    assert welcome["recollected"] == {"regranted": [bucket["bucket_id"]], "dropped": []}
    assert (await again.submit(await again.push("bucket")))["closed"] is True


async def test_hello_without_holds_recollects_nothing(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await cut(server, volunteer)
    again, welcome = await join_again(server, "volunteer")
    assert "recollected" not in welcome
    await no_push(again)
    recollected = await again.ok("recollect")
    assert (recollected["regranted"], recollected["dropped"]) == ([bucket["bucket_id"]], [])
    assert (await again.push("bucket"))["attempt"] == 1
    recollected = await again.ok("recollect", holds=[hold(bucket)])
    assert (recollected["regranted"], recollected["dropped"]) == ([], [])  # it has it
    await no_push(again)


async def test_a_bucket_that_another_took_is_dropped(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    other = await server.volunteer("other")
    bucket = await volunteer.bucket()
    await other.ok("ask", service="dm_check", count=1)
    volunteer.cut()
    taken = await other.push("bucket")
    again, welcome = await join_again(server, "volunteer", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [bucket["bucket_id"]]}
    await no_push(again)
    assert (await other.submit(taken))["closed"] is True


async def test_names_that_were_never_held_are_dropped(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    other = await server.volunteer("other")
    foreign = await other.bucket()
    nowhere = "00000000-0000-4000-8000-000000000000"
    holds = [hold(foreign), {"bucket_id": nowhere, "claim": 1}, {"bucket_id": "nonsense", "claim": 1}]
    recollected = await volunteer.ok("recollect", holds=holds)
    assert recollected["regranted"] == []
    assert recollected["dropped"] == [foreign["bucket_id"], nowhere, "nonsense"]
    assert (await other.submit(foreign))["closed"] is True


async def test_a_named_bucket_is_taken_over_from_a_live_session(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    twin, welcome = await join_again(server, "volunteer", holds=[])
    assert welcome["recollected"] == {"regranted": [], "dropped": []}  # not named: it stays where it is
    recollected = await twin.ok("recollect", holds=[hold(bucket)])
    assert recollected["regranted"] == [bucket["bucket_id"]]
    back = await twin.push("bucket")
    lost = await volunteer.push("bucket_lost")
    assert (lost["bucket_id"], lost["claim"], lost["reason"]) == (bucket["bucket_id"], bucket["claim"], "released")
    assert (back["claim"] > bucket["claim"], back["attempt"]) == (True, 1)
    volunteer.cut()  # no longer its bucket
    await no_push(twin)
    assert (await twin.submit(back))["closed"] is True


async def test_the_former_session_may_end_without_taking_the_bucket_along(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    other = await server.volunteer("other")
    twin, _ = await join_again(server, "volunteer", holds=[hold(bucket)])
    back = await twin.push("bucket")
    await volunteer.close()
    assert await other.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    assert (await twin.submit(back))["closed"] is True


async def test_what_the_client_released_itself_does_not_come_back(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await volunteer.ok("release", **hold(bucket))
    recollected = await volunteer.ok("recollect", holds=[hold(bucket)])
    assert (recollected["regranted"], recollected["dropped"]) == ([], [bucket["bucket_id"]])
    await cut(server, volunteer)
    _, welcome = await join_again(server, "volunteer", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [bucket["bucket_id"]]}


async def test_what_an_admin_released_does_not_come_back(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await admin.ok("bucket.release", bucket_id=bucket["bucket_id"])
    assert (await volunteer.push("bucket_lost"))["reason"] == "released"
    recollected = await volunteer.ok("recollect", holds=[hold(bucket)])
    assert (recollected["regranted"], recollected["dropped"]) == ([], [bucket["bucket_id"]])


async def test_a_final_submit_with_items_left_does_not_come_back(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await volunteer.submit(bucket, items=ids(bucket)[:1], final=True)
    recollected = await volunteer.ok("recollect", holds=[hold(bucket)])
    assert (recollected["regranted"], recollected["dropped"]) == ([], [bucket["bucket_id"]])


async def test_a_recollect_is_not_counted_as_an_attempt_however_often(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    await admin.add(4)
    bucket, peer = await volunteer.bucket(), volunteer
    for round_ in range(15):
        reset(peer)  # the server may notice the end before the next hello, or after it
        peer, welcome = await join_again(server, "volunteer", holds=[hold(bucket)])
        assert welcome["recollected"]["regranted"] == [bucket["bucket_id"]], round_
        bucket = await peer.push("bucket")
        assert bucket["attempt"] == 1, round_
    assert (await peer.submit(bucket))["closed"] is True
    await admin.add(1, prefix="next")
    assert (await within(peer.bucket(), 1))["attempt"] == 1  # nor does it make the client wait


async def test_recollected_buckets_do_not_count_against_max_held_buckets(
    start_server: StartServer, database: Database
) -> None:
    await configure(database, bucket_size=1, max_held_buckets=2)
    server = await start_server()
    admin, first = await server.admin(), await server.volunteer("client")
    second, _ = await join_again(server, "client")
    await admin.add(4)
    buckets = [await first.bucket(), await first.bucket()]
    reset(first)

    async def free() -> bool:
        return await value(database, "SELECT count(*) = 2 FROM claim WHERE ended = 'cut_off'") is True

    await eventually(free, "not freed")
    others = [await second.bucket(), await second.bucket()]
    recollected = await second.ok("recollect", holds=[hold(bucket) for bucket in buckets])
    regranted = set(recollected["regranted"])
    mine = {bucket["bucket_id"] for bucket in others}
    assert regranted == {bucket["bucket_id"] for bucket in buckets} - mine
    assert len(mine | regranted) > 2  # none of the client's own was offered to it again
    assert await second.refused("ask", service="dm_check", count=1, wait=False) == "no_work"


async def test_after_the_window_nothing_comes_back(start_server: StartServer) -> None:
    server = await start_server(recollect_window=0.3)
    admin, volunteer = await server.admin(), await server.volunteer("late")
    await admin.add(4)
    bucket = await volunteer.bucket()
    await cut(server, volunteer)

    async def over() -> bool:
        return bool(await value(server.database, "SELECT now() > max(ended_at) + interval '0.3 seconds' FROM claim"))

    await eventually(over, "time stands still")
    again, welcome = await join_again(server, "late", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [bucket["bucket_id"]]}
    await no_push(again)


async def test_a_stranger_recollects_nothing(server: Server, admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(4)
    bucket = await volunteer.bucket()
    await cut(server, volunteer)
    nobody = await server.client()
    welcome = await nobody.hello("nobody", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [bucket["bucket_id"]]}
    other = await server.volunteer("other")
    recollected = await other.ok("recollect", holds=[hold(bucket)])
    assert recollected["dropped"] == [bucket["bucket_id"]]


async def test_a_drained_nodes_buckets_are_kept_for_their_client(start_server: StartServer) -> None:
    first = await start_server(drain_grace=0, node_name="first")
    second = await start_server(node_name="second")
    admin, client = await second.admin(), await first.volunteer("client")
    await admin.add(4)
    bucket = await client.bucket()
    await first.node.drain()
    assert (await client.push("drain"))["retry_after"] > 0
    assert await client.close_code() == 1012
    other = await second.volunteer("other")
    assert await other.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
    again, welcome = await join_again(second, "client", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [bucket["bucket_id"]], "dropped": []}
    back = await again.push("bucket")
    assert back["attempt"] == 1
    assert (await again.submit(back))["closed"] is True


async def test_a_drained_nodes_buckets_are_kept_across_its_next_boot(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        settings = Settings(port=0, ops_port=0, data=tmp_path, node_name="same", drain_grace=0)
        async with Node(settings, dsn=dsn) as node:
            first = Server(node, database, stack)
            client, admin = await first.volunteer("client"), await first.admin()
            await admin.add(4)
            bucket = await client.bucket()
            await node.drain()
            assert await client.close_code() == 1012
        async with Node(settings, dsn=dsn) as node:
            second = Server(node, database, stack)
            other = await second.volunteer("other")
            assert await other.refused("ask", service="dm_check", count=1, wait=False) == "no_work"
            again, welcome = await join_again(second, "client", holds=[])
            assert welcome["recollected"] == {"regranted": [bucket["bucket_id"]], "dropped": []}
            back = await again.push("bucket")
            assert (back["attempt"], ids(back)) == (1, ids(bucket))
            await stack.aclose()


async def test_a_submit_for_a_kept_bucket_from_the_next_boot_counts(
    dsn: str, database: Database, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        settings = Settings(port=0, ops_port=0, data=tmp_path, node_name="same", drain_grace=0)
        async with Node(settings, dsn=dsn) as node:
            first = Server(node, database, stack)
            client, admin = await first.volunteer("client"), await first.admin()
            await admin.add(4)
            bucket = await client.bucket()
            await node.drain()
        async with Node(settings, dsn=dsn) as node:
            again, _ = await join_again(Server(node, database, stack), "client")
            stored = await again.submit(bucket)  # its claim is still the current one
            assert (stored["type"], stored.get("stored")) == ("stored", 4), stored
            await stack.aclose()


async def test_what_was_kept_too_long_goes_to_others(start_server: StartServer) -> None:
    first = await start_server(drain_grace=0, reconnect_window=0.5, node_name="first")
    second = await start_server(node_name="second")
    admin, client, other = await second.admin(), await first.volunteer("client"), await second.volunteer("other")
    await admin.add(4)
    bucket = await client.bucket()
    await other.ok("ask", service="dm_check", count=1)
    await first.node.drain()
    taken = await other.push("bucket")
    assert taken["bucket_id"] == bucket["bucket_id"]
    _, welcome = await join_again(second, "client", holds=[hold(bucket)])
    assert welcome["recollected"] == {"regranted": [], "dropped": [bucket["bucket_id"]]}
