"""The requests `bucket.…`: list, show, release.  protocol.md, "bucket.list" """

from __future__ import annotations

from msgspec import structs

from coordinator.admin import Steps
from coordinator.errors import NotFound, UnknownBucket
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.core import Core
from coordinator.flow.intake import bucket_of
from coordinator.flow.release import Releases
from coordinator.model import BucketId
from coordinator.stats.rows import Columns, filled, made
from coordinator.store import buckets as store
from coordinator.wire.admin import buckets as wire


class BucketRequests:
    """Carries out the requests `bucket.…`."""

    def __init__(self, core: Core, releases: Releases) -> None:
        self._database = core.database
        self._catalogue = core.catalogue
        self._releases = releases

    def steps(self) -> Steps:
        """Each request with its method."""
        return {
            wire.BucketList: self.list,
            wire.BucketShow: self.show,
            wire.BucketRelease: self.release,
        }

    async def list(self, request: wire.BucketList) -> wire.BucketPage:
        """List buckets by id, open or done.

        Raises:
            NotFound: there is no such service.
            UnknownBucket: `after` is the id of none.
        """
        service = None if request.service is None else self._catalogue.named(request.service).service.service_id
        after = None if request.after is None else bucket_of(request.after)
        async with self._database.connection() as db:
            found = await store.page(db, after, request.limit, service, request.state, request.client_id)

        rows = await made(lambda row: bucket_row(row, self._catalogue), found)
        return wire.BucketPage(rows=rows, next=rows[-1].bucket_id if len(rows) == request.limit else None)

    async def show(self, request: wire.BucketShow) -> wire.BucketShown:
        """Show one bucket with its items that are still to be settled.

        Raises:
            NotFound
        """
        bucket_id = _bucket_of(request.bucket_id)
        async with self._database.connection() as db:
            row = await store.show(db, bucket_id)
        if row is None:
            raise NotFound("There is no such bucket.")
        items = [wire.OpenItem(**item) for item in row["items"]]
        return wire.BucketShown(**structs.asdict(bucket_row(row, self._catalogue)), items=items)

    async def release(self, request: wire.BucketRelease) -> wire.BucketReleased:
        """Take a bucket from its holder.

        Raises:
            NotFound
        """
        try:
            return wire.BucketReleased(released=await self._releases.take(_bucket_of(request.bucket_id)))
        except UnknownBucket as failure:
            raise NotFound(failure.message) from None


def bucket_row(row: Columns, catalogue: Catalogue) -> wire.ListedBucket:
    """A bucket as admins see it."""
    return filled(wire.ListedBucket, row, service=catalogue.by_id(row["service_id"]).service.name)


def _bucket_of(name: str) -> BucketId:
    try:
        return bucket_of(name)
    except UnknownBucket as failure:
        raise NotFound(failure.message) from None
