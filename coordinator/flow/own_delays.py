"""Delays of the node itself: what a client could not get through in time because of them is not its fault."""

from __future__ import annotations

from time import monotonic

from coordinator.flow.core import Core
from coordinator.model import BucketId

LATE = 1.5
"""Seconds that a look at the database may take; behind one that took longer, the clients' statements may wait still."""

TIME_TO_REPEAT = 15.0
"""Seconds in which clients repeat what could not be carried out; as the function `time_to_repeat` of the schema."""


class OwnDelays:
    """Knows whether the clients of this node could do in time what they are blamed for.

    Outages that all nodes saw are in the database, which does not count their time; this is about shorter ones, and
    about those that only this node saw.
    """

    def __init__(self, core: Core) -> None:
        self._database = core.database
        self._registry = core.registry

    def hold_up(self, look: float) -> bool:
        """Whether nobody is to be blamed now: the database failed lately, or the last look at it took too long."""
        return look > LATE or monotonic() - self._database.failed_at < TIME_TO_REPEAT

    def spared(self) -> list[BucketId]:
        """Return buckets whose submit is under way, or could lately not be carried out."""
        since = monotonic() - TIME_TO_REPEAT
        held = self._registry.all_held()
        return [one.bucket_id for one in held if one.submits or one.failed_at > since]
