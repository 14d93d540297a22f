"""The life of a bucket: every state, everything that can happen to it, what comes of it, and who is told.

This table is the one place that says it; protocol.md draws it, a test walks it on the database, and the SQL in
`coordinator.store` carries it out.  What is not in the table changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from typing import Literal

State = Literal["ready", "claimed", "dead", "done"]
STATES: tuple[State, ...] = ("ready", "claimed", "dead", "done")


class Event(Enum):
    """What can happen to a bucket: a message of a client, a request of an admin, the clock."""

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
    SPLIT = "the third failed attempt, recollect_window later"
    TAKEN = "bucket.release"
    DEACTIVATE = "client.deactivate"
    REVOKE = "the service is revoked"
    EMPTIED = "its last item is deleted or settled elsewhere"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What comes of an event: the state after it, the answer to who caused it, the push to who held it.

    `attempt` tells that it counts as a failed attempt, `cost` that it costs the client.
    """

    to: State
    answer: str = ""
    push: str = ""
    attempt: bool = False
    cost: bool = False


_RELEASED = Outcome("ready", push="bucket_lost released")

LIFE: dict[tuple[State, Event], Outcome] = {
    ("ready", Event.CLAIM): Outcome("claimed", push="bucket"),
    ("ready", Event.RECOLLECT): Outcome("claimed", answer="recollected", push="bucket"),
    ("ready", Event.SPLIT): Outcome("done"),
    ("ready", Event.EMPTIED): Outcome("done"),
    ("claimed", Event.SETTLE_SOME): Outcome("claimed", answer="stored"),
    ("claimed", Event.SETTLE_REST): Outcome("done", answer="stored, closed"),
    ("claimed", Event.SETTLE_FINAL): Outcome("ready", answer="stored, closed", attempt=True),
    ("claimed", Event.SETTLE_NOTHING): Outcome("claimed", answer="stored, duplicate"),
    ("claimed", Event.RELEASE): Outcome("ready", answer="released", cost=True),
    ("claimed", Event.DISCONNECT): Outcome("ready", attempt=True, cost=True),
    ("claimed", Event.RECOLLECT): Outcome("claimed", answer="recollected", push="bucket"),
    ("claimed", Event.TAKE_OVER): Outcome("claimed", answer="recollected", push="bucket; bucket_lost released"),
    ("claimed", Event.LEAVE): _RELEASED,
    ("claimed", Event.DRAIN): Outcome("claimed", push="drain"),
    ("claimed", Event.KEPT_TOO_LONG): Outcome("ready"),
    ("claimed", Event.CRASH): Outcome("ready"),
    ("claimed", Event.DEAD): Outcome("dead", push="bucket_dead"),
    ("claimed", Event.TAKEN): _RELEASED,
    ("claimed", Event.DEACTIVATE): Outcome("ready", push="bucket_lost deactivated"),
    ("claimed", Event.REVOKE): Outcome("ready", push="bucket_lost revoked"),
    ("claimed", Event.EMPTIED): Outcome("done", push="bucket_lost done"),
    ("dead", Event.SETTLE_SOME): Outcome("claimed", answer="stored"),
    ("dead", Event.SETTLE_REST): Outcome("done", answer="stored, closed"),
    ("dead", Event.SETTLE_FINAL): Outcome("ready", answer="stored, closed", attempt=True),
    ("dead", Event.SETTLE_NOTHING): Outcome("dead", answer="stored, duplicate"),
    ("dead", Event.RELEASE): Outcome("ready", answer="released", cost=True),
    ("dead", Event.DISCONNECT): Outcome("ready", attempt=True, cost=True),
    ("dead", Event.RECOLLECT): Outcome("claimed", answer="recollected", push="bucket"),
    ("dead", Event.TAKE_OVER): Outcome("dead", answer="recollected", push="bucket; bucket_dead; bucket_lost released"),
    ("dead", Event.LEAVE): _RELEASED,
    ("dead", Event.DRAIN): Outcome("dead", push="drain"),
    ("dead", Event.KEPT_TOO_LONG): Outcome("ready"),
    ("dead", Event.CRASH): Outcome("ready"),
    ("dead", Event.DEAD_TOO_LONG): Outcome("ready", push="bucket_lost released", attempt=True),
    ("dead", Event.TAKEN): _RELEASED,
    ("dead", Event.DEACTIVATE): Outcome("ready", push="bucket_lost deactivated"),
    ("dead", Event.REVOKE): Outcome("ready", push="bucket_lost revoked"),
    ("dead", Event.EMPTIED): Outcome("done", push="bucket_lost done"),
}


def drawing() -> str:
    """The table as protocol.md shows it, in Markdown."""
    lines = [
        "| state | event | next | answer | pushes | failed attempt | costs the client |",
        "|---|---|---|---|---|---|---|",
    ]
    for state, group in groupby(LIFE.items(), key=lambda one: one[0][0]):
        for (_, event), outcome in group:
            cells = (
                f"`{state}`",
                event.value,
                f"`{outcome.to}`",
                outcome.answer,
                outcome.push,
                "yes" if outcome.attempt else "",
                "yes" if outcome.cost else "",
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
