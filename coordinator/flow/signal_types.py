"""The signals between nodes, one type each; JSON on the channel, with the type's tag as `kind`."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from coordinator.model import Boot, BucketId, ClaimNumber, ClientId, ServiceId, SessionId
from coordinator.wire.client import LostReason

ClaimOfClient = tuple[ClientId, BucketId, ClaimNumber]
"""A claim that is over or dead, and whose it was; about 115 bytes of a signal."""

CLAIMS_A_SIGNAL = 60
"""Claims that one signal tells of, at most."""


class Signal(Struct, tag_field="kind"):
    """A thing that a node tells itself and all others."""


class WorkCame(Signal, tag="work"):
    """There may be work for a service.

    `waiting`: new items, which are in no bucket yet; `behind`: buckets that rank behind all that were ready.
    """

    service: ServiceId
    waiting: bool = False
    behind: bool = False


class ServicesChanged(Signal, tag="services"):
    """The services are to be read again."""


class ClientChanged(Signal, tag="client"):
    """A client is to be read again; `unregistered`: it is not registered any more, whatever the database says later."""

    client: ClientId
    unregistered: bool = False


class ClaimsLost(Signal, tag="lost"):
    """Claims were taken from their holders; `spare` is a session that knows it already."""

    claims: list[ClaimOfClient]
    reason: LostReason
    spare: SessionId | None = None


class ClaimsDied(Signal, tag="dead"):
    """Claims were marked dead; they are released `release_after` seconds later."""

    claims: list[ClaimOfClient]
    release_after: float


class LongWaits(Signal, tag="waits"):
    """For how many seconds the client of a node has waited whose turn it is, in each service where that is long."""

    node: Boot
    seconds: dict[ServiceId, float]


class NoticeChanged(Signal, tag="notice"):
    """A message of an operator was sent or withdrawn."""

    number: int


class TokenEnded(Signal, tag="token"):
    """The sessions that live by a token are to end."""

    token_id: str


class NodeDrains(Signal, tag="drain"):
    """The node of that name is to hand out no more, and end."""

    node: str


class NodeStarted(Signal, tag="node"):
    """A node has started: no other one is alone any more."""


class ServiceReloaded(Signal, tag="reloaded"):
    """A service was added or changed, and has been read again; of this node alone."""

    service: ServiceId


class SignalsMissed(Signal, tag="missed"):
    """Signals of other nodes may have been missed, so that all they tell of is to be read again; of this node alone."""


AnySignal = (
    WorkCame
    | ServicesChanged
    | ClientChanged
    | ClaimsLost
    | ClaimsDied
    | LongWaits
    | NoticeChanged
    | TokenEnded
    | NodeDrains
    | NodeStarted
)
"""A signal that is sent to the other nodes."""


def batches(claims: Sequence[ClaimOfClient]) -> list[list[ClaimOfClient]]:
    """Cut claims into parts that fit into one signal each."""
    return [list(claims[at : at + CLAIMS_A_SIGNAL]) for at in range(0, len(claims), CLAIMS_A_SIGNAL)]
