"""Events of the steps, through real sockets."""

from __future__ import annotations

from coordinator.observe.events import EVENTS_REMEMBERED, MAX_EVENT_TEXT, Events
from tests.harness import Server
from tests.serve.tools import eventually


def test_the_ring_forgets_the_oldest_and_counts_go_on() -> None:
    events = Events()
    for number in range(EVENTS_REMEMBERED + 5):
        events.emit("connect", f"{number}")
    assert (events.newest, events.counts["connect"]) == (EVENTS_REMEMBERED + 5, EVENTS_REMEMBERED + 5)
    assert [one.text for one in events.since(EVENTS_REMEMBERED + 3)] == [
        f"{EVENTS_REMEMBERED + 3}",
        f"{EVENTS_REMEMBERED + 4}",
    ]
    assert len(events.since(0)) == EVENTS_REMEMBERED
    assert events.since(0)[0].number == 6
    assert events.since(events.newest) == []


def test_no_text_of_an_event_is_long() -> None:
    events = Events()
    events.emit("fault", "x" * 10_000, client="ada", service="dm_check", bucket="b")
    (event,) = events.since(0)
    assert (len(event.text), event.client, event.service, event.bucket) == (MAX_EVENT_TEXT, "ada", "dm_check", "b")


async def test_a_request_about_something_that_is_not_there_is_no_event_of_it(server: Server) -> None:
    admin = await server.admin()
    await server.volunteer("ada")
    assert await admin.refused("service.pause", service="nothing") == "not_found"
    assert await admin.refused("client.deactivate", client_id="nobody", service="dm_check") == "not_found"
    assert await admin.refused("bucket.release", bucket_id="0" * 32) == "not_found"
    await admin.ok("client.deactivate", client_id="ada")
    told = [
        (one.text.split()[1], one.client, one.service, one.bucket)
        for one in server.node.events.since(0)
        if one.kind == "admin"
    ]
    assert told == [
        ("nothing", None, None, None),
        ("nobody", None, "dm_check", None),
        ("0" * 32, None, None, None),
        ("ada", "ada", None, None),
    ]


async def test_the_steps_tell_what_happens(server: Server) -> None:
    admin = await server.admin()
    await admin.add(2)
    await admin.ok("service.list")
    volunteer = await server.volunteer("ada")
    bucket = await volunteer.bucket()
    await volunteer.ok("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    other = await server.volunteer("bob")
    held = await other.bucket()
    await admin.ok("bucket.release", bucket_id=held["bucket_id"])
    events = server.node.events
    told = [(one.kind, one.client, one.service, one.bucket) for one in events.since(0)]
    assert told == [
        ("node", None, None, None),
        ("admin", None, None, None),
        ("connect", "ada", None, None),
        ("register", "ada", None, None),
        ("release", "ada", "dm_check", bucket["bucket_id"]),
        ("connect", "bob", None, None),
        ("register", "bob", None, None),
        ("lost", "bob", "dm_check", held["bucket_id"]),
        ("admin", None, None, held["bucket_id"]),
    ]
    third = await server.volunteer("cleo")
    await third.bucket()
    third.cut()

    async def noticed() -> bool:
        return events.counts["disconnect"] == 1

    await eventually(noticed, "the end of a session that held something is an event")
    assert "buckets: 1" in events.since(0)[-1].text
