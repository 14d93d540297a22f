"""The life of a bucket: its states and events, and for each the next state, the answer and the pushes.

This table is the only place that defines it: protocol.md draws it, a test walks it on the database, and the SQL in
`coordinator.store` carries it out.  An event that is not in the table for a state changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Literal

State = Literal["ready", "claimed", "dead", "done"]
STATES: tuple[State, ...] = ("ready", "claimed", "dead", "done")


class BucketEvent(Enum):
    """An event in the life of a bucket: a client's message, an admin's request, the end of a time."""

    CLAIM = "an ask is served"
    SETTLE_SOME = "submit, items left, not final"
    SETTLE_REST = "submit, no item left"
    SETTLE_FINAL = "submit, items left, final"
    SETTLE_NOTHING = "submit of what is stored already"
    RELEASE = "release"
    DISCONNECT = "the connection of its session ends"
    RECOLLECT = "recollect by the client that was cut off"
    TAKE_OVER = "recollect, named, by another session of the holder"
    LEAVE = "leave, unregister"
    DRAIN = "its node drains"
    KEPT_TOO_LONG = "kept for reconnect_window"
    CRASH = "its node is gone"
    DEAD = "nothing settled for dead_after"
    DEAD_TOO_LONG = "dead for release_after"
    EXPIRED = "held for max_claim_time"
    SPLIT = "the third attempt that failed at clients of standing, recollect_window later"
    TAKEN = "bucket.release"
    DEACTIVATE = "client.deactivate"
    REVOKE = "the service is revoked"
    EMPTIED = "its last item is deleted or settled elsewhere"


@dataclass(frozen=True, slots=True)
class Transition:
    """The effect of an event: the next state, the answer to its sender, the push to the holder.

    `attempt`: it counts as a failed attempt.  `cost`: it counts against the client.
    """

    to: State
    answer: str = ""
    push: str = ""
    attempt: bool = False
    cost: bool = False


_RELEASED = Transition("ready", push="bucket_lost released")
_GIVEN_UP = Transition("ready", answer="stored, closed", attempt=True, cost=True)
_EXPIRED = Transition("ready", push="bucket_lost expired", attempt=True, cost=True)
_LEFT = Transition("ready", push="bucket_lost released", cost=True)

LIFE: dict[tuple[State, BucketEvent], Transition] = {
    ("ready", BucketEvent.CLAIM): Transition("claimed", push="bucket"),
    ("ready", BucketEvent.RECOLLECT): Transition("claimed", answer="recollected", push="bucket"),
    ("ready", BucketEvent.SPLIT): Transition("done"),
    ("ready", BucketEvent.EMPTIED): Transition("done"),
    ("claimed", BucketEvent.SETTLE_SOME): Transition("claimed", answer="stored"),
    ("claimed", BucketEvent.SETTLE_REST): Transition("done", answer="stored, closed"),
    ("claimed", BucketEvent.SETTLE_FINAL): _GIVEN_UP,
    ("claimed", BucketEvent.SETTLE_NOTHING): Transition("claimed", answer="stored, duplicate"),
    ("claimed", BucketEvent.RELEASE): Transition("ready", answer="released", cost=True),
    ("claimed", BucketEvent.DISCONNECT): Transition("ready", attempt=True, cost=True),
    ("claimed", BucketEvent.RECOLLECT): Transition("claimed", answer="recollected", push="bucket"),
    ("claimed", BucketEvent.TAKE_OVER): Transition(
        "claimed", answer="recollected", push="bucket; bucket_lost released"
    ),
    ("claimed", BucketEvent.LEAVE): _LEFT,
    ("claimed", BucketEvent.DRAIN): Transition("claimed", push="drain"),
    ("claimed", BucketEvent.KEPT_TOO_LONG): Transition("ready"),
    ("claimed", BucketEvent.CRASH): Transition("ready"),
    ("claimed", BucketEvent.DEAD): Transition("dead", push="bucket_dead"),
    ("claimed", BucketEvent.EXPIRED): _EXPIRED,
    ("claimed", BucketEvent.TAKEN): _RELEASED,
    ("claimed", BucketEvent.DEACTIVATE): Transition("ready", push="bucket_lost deactivated"),
    ("claimed", BucketEvent.REVOKE): Transition("ready", push="bucket_lost revoked"),
    ("claimed", BucketEvent.EMPTIED): Transition("done", push="bucket_lost done"),
    ("dead", BucketEvent.SETTLE_SOME): Transition("claimed", answer="stored"),
    ("dead", BucketEvent.SETTLE_REST): Transition("done", answer="stored, closed"),
    ("dead", BucketEvent.SETTLE_FINAL): _GIVEN_UP,
    ("dead", BucketEvent.SETTLE_NOTHING): Transition("dead", answer="stored, duplicate"),
    ("dead", BucketEvent.RELEASE): Transition("ready", answer="released", cost=True),
    ("dead", BucketEvent.DISCONNECT): Transition("ready", attempt=True, cost=True),
    ("dead", BucketEvent.RECOLLECT): Transition("claimed", answer="recollected", push="bucket"),
    ("dead", BucketEvent.TAKE_OVER): Transition(
        "dead", answer="recollected", push="bucket; bucket_dead; bucket_lost released"
    ),
    ("dead", BucketEvent.LEAVE): _LEFT,
    ("dead", BucketEvent.DRAIN): Transition("dead", push="drain"),
    ("dead", BucketEvent.KEPT_TOO_LONG): Transition("ready"),
    ("dead", BucketEvent.CRASH): Transition("ready"),
    ("dead", BucketEvent.DEAD_TOO_LONG): Transition("ready", push="bucket_lost released", attempt=True, cost=True),
    ("dead", BucketEvent.EXPIRED): _EXPIRED,
    ("dead", BucketEvent.TAKEN): _RELEASED,
    ("dead", BucketEvent.DEACTIVATE): Transition("ready", push="bucket_lost deactivated"),
    ("dead", BucketEvent.REVOKE): Transition("ready", push="bucket_lost revoked"),
    ("dead", BucketEvent.EMPTIED): Transition("done", push="bucket_lost done"),
}


def drawing() -> str:
    """Draw the table as protocol.md shows it, in Markdown."""
    lines = [
        "| state | event | next | answer | pushes | failed attempt | costs the client |",
        "|---|---|---|---|---|---|---|",
    ]

    for state, group in groupby(LIFE.items(), key=lambda row: row[0][0]):
        for (_, event), transition in group:
            cells = (
                f"`{state}`",
                event.value,
                f"`{transition.to}`",
                transition.answer,
                transition.push,
                "yes" if transition.attempt else "",
                "yes" if transition.cost else "",
            )
            lines.append("| " + " | ".join(cells) + " |")

    return "\n".join(lines)
