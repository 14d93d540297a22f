"""The main path: ask, bucket, submit, stored."""

from __future__ import annotations

from tests.harness import Admin, Server, Volunteer


async def test_a_bucket_is_asked_for_checked_and_stored(admin: Admin, volunteer: Volunteer) -> None:
    await admin.add(10)
    bucket = await volunteer.bucket()
    stored = await volunteer.submit(bucket)
    assert (stored["stored"], stored["remaining"], stored["closed"], stored["duplicate"]) == (10, 0, True, False)
    rows = (await admin.ok("result.list", service="dm_check"))["rows"]
    assert {row["key"] for row in rows} == {f"account{n}" for n in range(10)}
    assert {row["client_id"] for row in rows} == {"volunteer"}


async def test_an_ask_on_an_empty_pool_is_served_when_items_come(
    server: Server, admin: Admin, volunteer: Volunteer
) -> None:
    asked = await volunteer.ok("ask", service="dm_check", count=1)
    assert asked["pending"] == 1
    await admin.add(3)
    bucket = await volunteer.push("bucket")
    assert len(bucket["items"]) == 3
