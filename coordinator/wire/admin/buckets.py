"""Requests `bucket.…` and their answers.  protocol.md, "Admin requests" """

from __future__ import annotations

from msgspec import Struct

from coordinator.model import BucketState
from coordinator.wire.admin.fields import After, Ok
from coordinator.wire.frames import Answer, BucketName, Name, PageSize, Request


class ListedBucket(Struct):
    """A bucket; `client_id` is who holds it, `claim` the number of its last claim.

    `touched_at` is when it was claimed, or an item of it settled, or it was marked dead; null while nobody holds it.
    """

    bucket_id: str
    service: str
    state: BucketState
    client_id: str | None
    claim: int
    attempts: int
    remaining: int
    touched_at: str | None


class OpenItem(Struct):
    """An item of a bucket that is still to be settled."""

    item: int
    key: str


class BucketList(Request, tag="bucket.list"):
    """List buckets by id, open or done."""

    service: Name | None = None
    state: BucketState | None = None
    client_id: Name | None = None
    limit: PageSize = 100
    after: After | None = None


class BucketPage(Ok, kw_only=True):
    """One page of buckets."""

    rows: list[ListedBucket]
    next: str | None


class BucketShow(Request, tag="bucket.show"):
    """Show one bucket with its items that are still to be settled."""

    bucket_id: BucketName


class BucketShown(Ok, kw_only=True):
    """The fields of a `ListedBucket`, and the items that are still to be settled."""

    bucket_id: str
    service: str
    state: BucketState
    client_id: str | None
    claim: int
    attempts: int
    remaining: int
    touched_at: str | None
    items: list[OpenItem]


class BucketRelease(Request, tag="bucket.release"):
    """Take a bucket from its holder."""

    bucket_id: BucketName


class BucketReleased(Ok, kw_only=True):
    """1, or 0 if nobody held it."""

    released: int


ANSWERS: dict[type[Request], type[Answer]] = {
    BucketList: BucketPage,
    BucketShow: BucketShown,
    BucketRelease: BucketReleased,
}
