"""The same submit again, other content, and one behind the other: stored once, and all or nothing."""

from __future__ import annotations

import asyncio

from tests.bounded import within
from tests.harness import Admin, Message, Server, Volunteer, submission
from tests.serve.tools import code, eventually, half_close, ids, join_again, raw, results, value


async def test_a_repeat_is_a_duplicate_from_any_session_of_the_client(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    first = await volunteer.submit(bucket)
    twin, _ = await join_again(server, "volunteer")
    for peer in (volunteer, twin):
        repeat = await peer.submit(bucket)
        assert (repeat["stored"], repeat["remaining"], repeat["closed"], repeat["duplicate"]) == (0, 0, True, True)
    assert (first["stored"], first["duplicate"]) == (4, False)
    backwards = {**bucket, "items": bucket["items"][::-1]}
    assert (await volunteer.submit(backwards))["duplicate"] is True
    some = await volunteer.submit(bucket, items=ids(bucket)[:1])
    assert (some["duplicate"], some["closed"]) == (True, True)
    assert await results(server.database) == 4


async def test_other_content_under_an_ended_claim_conflicts(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    await volunteer.submit(bucket)
    assert await code(volunteer, bucket, dm="NON_DM") == "conflict"
    rows = (await (await server.admin()).ok("result.list", service="dm_check"))["rows"]
    assert [row["value"]["dm"] for row in rows] == ["DM"] * 4


async def test_other_content_under_an_ended_claim_conflicts_although_the_bucket_went_on(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    await volunteer.submit(bucket, items=ids(bucket)[:2], final=True)
    other = await server.volunteer("other")
    rest = await other.bucket()
    assert sorted(ids(rest)) == sorted(ids(bucket)[2:])
    assert (await volunteer.submit(bucket, items=ids(bucket)[:2]))["duplicate"] is True
    assert await code(volunteer, bucket, dm="NON_DM", items=ids(bucket)[:1]) == "conflict"
    # Stored with other content, and never stored: the conflict answers.
    assert await code(volunteer, bucket, dm="NON_DM") == "conflict"
    # Stored with equal content, and never stored: the claim has ended.
    assert await code(volunteer, bucket) == "stale_claim"
    assert await code(volunteer, bucket, items=ids(bucket)[2:]) == "stale_claim"
    assert (await other.submit(rest))["stored"] == 2


async def test_a_conflict_stores_nothing_of_the_message(server: Server, volunteer: Volunteer, bucket: Message) -> None:
    first, *rest = ids(bucket)
    await volunteer.submit(bucket, items=[first], final=False)
    assert await code(volunteer, bucket, dm="NON_DM") == "conflict"
    assert await results(server.database) == 1
    mixed = await volunteer.submit(bucket, items=[first, *rest[:1]], final=False)
    assert (mixed["stored"], mixed["duplicate"], mixed["remaining"], mixed["closed"]) == (1, False, 2, False)
    last = await volunteer.submit(bucket)
    assert (last["stored"], last["duplicate"], last["closed"]) == (2, False, True)
    assert await results(server.database) == 4


async def test_a_repeat_on_the_current_claim_leaves_it_open(volunteer: Volunteer, bucket: Message) -> None:
    some = ids(bucket)[:2]
    await volunteer.submit(bucket, items=some, final=False)
    repeat = await volunteer.submit(bucket, items=some, final=False)
    assert (repeat["stored"], repeat["duplicate"], repeat["remaining"], repeat["closed"]) == (0, True, 2, False)
    assert (await volunteer.submit(bucket, items=ids(bucket)[2:]))["closed"] is True


async def test_a_final_repeat_of_what_was_not_final_ends_the_claim(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    some = ids(bucket)[:2]
    await volunteer.submit(bucket, items=some, final=False)
    repeat = await volunteer.submit(bucket, items=some, final=True)
    assert (repeat["stored"], repeat["duplicate"], repeat["remaining"], repeat["closed"]) == (0, True, 2, True)
    other = await server.volunteer("other")
    assert sorted(ids(await other.bucket())) == sorted(ids(bucket)[2:])
    assert await code(volunteer, bucket, items=ids(bucket)[2:]) == "stale_claim"


async def test_an_empty_submit_is_never_a_duplicate(server: Server, volunteer: Volunteer, bucket: Message) -> None:
    for _ in range(2):
        stored = await volunteer.submit(bucket, items=[], final=False)
        assert (stored["stored"], stored["duplicate"], stored["remaining"], stored["closed"]) == (0, False, 4, False)
    ended = await volunteer.submit(bucket, items=[], final=True)
    assert (ended["duplicate"], ended["remaining"], ended["closed"]) == (False, 4, True)
    assert await code(volunteer, bucket, items=[]) == "stale_claim"
    other = await server.volunteer("other")
    again = await other.bucket()
    assert sorted(ids(again)) == sorted(ids(bucket))
    assert await code(volunteer, bucket, items=[]) == "stale_claim"


async def test_order_of_fields_and_white_space_make_no_other_content(volunteer: Volunteer, bucket: Message) -> None:
    await volunteer.submit(bucket)
    results_text = ", ".join(f'{{ "dm" : "\\u0044M", "item": {item} }}' for item in ids(bucket))
    answer = await raw(
        volunteer,
        f'{{"type": "submit", "ref": "by hand", "bucket_id": "{bucket["bucket_id"].upper()}",'
        f' "claim": {bucket["claim"]}, "results": [{results_text}], "final": true}}',
    )
    assert (answer["type"], answer.get("duplicate"), answer["ref"]) == ("stored", True, "by hand"), answer


async def test_submits_one_behind_the_other_without_waiting(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    parts = [volunteer.send("submit", **submission(bucket, items=[item], final=False)) for item in ids(bucket)]
    repeats = [volunteer.send("submit", **submission(bucket, items=[item], final=False)) for item in ids(bucket)]
    answers = await within(asyncio.gather(*parts, *repeats), 10)
    assert [answer["stored"] for answer in answers] == [1] * 4 + [0] * 4
    assert [answer["duplicate"] for answer in answers] == [False] * 4 + [True] * 4
    assert [answer["remaining"] for answer in answers[:4]] == [3, 2, 1, 0]


async def test_a_release_behind_a_submit_comes_after_it(volunteer: Volunteer, bucket: Message) -> None:
    part = volunteer.send("submit", **submission(bucket, items=ids(bucket)[:3], final=False))
    released = volunteer.send("release", bucket_id=bucket["bucket_id"], claim=bucket["claim"])
    late = volunteer.send("submit", **submission(bucket, items=ids(bucket)[3:], final=True))
    stored, given, refused = await within(asyncio.gather(part, released, late), 10)
    assert (stored["stored"], given["type"], given["remaining"]) == (3, "released", 1)
    assert refused["code"] == "stale_claim"


async def test_a_deleted_item_is_discarded(server: Server, admin: Admin, volunteer: Volunteer, bucket: Message) -> None:
    gone = bucket["items"][0]
    await admin.ok("item.delete", keys=[gone["key"]])
    stored = await volunteer.submit(bucket)
    assert (stored["stored"], stored["discarded"], stored["remaining"], stored["closed"]) == (3, 1, 0, True)
    assert await results(server.database) == 3
    repeat = await volunteer.submit(bucket)
    assert (repeat["type"], repeat.get("stored")) == ("stored", 0), repeat


async def test_a_submit_of_deleted_items_only_is_discarded(admin: Admin, volunteer: Volunteer, bucket: Message) -> None:
    gone = bucket["items"][0]
    await admin.ok("item.delete", keys=[gone["key"]])
    stored = await volunteer.submit(bucket, items=[gone["item"]], final=False)
    assert (stored["stored"], stored["discarded"], stored["remaining"], stored["closed"]) == (0, 1, 3, False)


async def test_a_refused_submit_is_counted_and_the_bucket_stays(
    server: Server, volunteer: Volunteer, bucket: Message
) -> None:
    assert await code(volunteer, bucket, dm="PERHAPS") == "bad_result"
    assert await code(volunteer, bucket, items=[999_999]) == "unassigned_items"

    async def counted() -> bool:
        return bool(await value(server.database, "SELECT sum(bad_submits) = 2 FROM membership"))

    await eventually(counted, "not counted")
    half_close(volunteer)  # what was sent before the end is done
    other = await server.volunteer("other")
    assert (await other.bucket())["bucket_id"] == bucket["bucket_id"]
