"""The reasons for which a client waits, from most to least pressing.  protocol.md, "Waiting"

Pure, and the only place: dispatchers go by it, and it is what clients, admins and onlookers are told.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.flow.allowed_agents import too_old
from coordinator.model import Service, ServiceSettings, Wait
from coordinator.store.waits import WaitFacts
from coordinator.wire.frames import Waiting
from coordinator.wire.paging import time_text_or_none


def waiting_of(wait: Wait | None) -> Waiting | None:
    """Return a reason as it is told on the wire."""
    return None if wait is None else Waiting(wait.reason, wait.text, time_text_or_none(wait.until))


def wait_for_all(service: Service, *, draining: bool) -> Wait | None:
    """Return the reason for which all clients of a node wait for a service, whatever is known of each."""
    return next(_reasons_for_all(service, draining=draining), None)


def wait_of_client(
    service: Service, facts: WaitFacts, agent: str | None = None, *, draining: bool = False
) -> Wait | None:
    """Return the reason for which a session waits for a service; None if something is ready for it.

    `facts` are those of its client, `agent` is its program, `draining` is its node.
    """
    return next(reasons(service, facts, agent, draining=draining), None)


def reasons(service: Service, facts: WaitFacts, agent: str | None = None, *, draining: bool = False) -> Iterator[Wait]:
    """Yield all reasons that hold, the one that is told first."""
    yield from _reasons_for_all(service, draining=draining)

    if (old := too_old(agent, service.settings)) is not None:
        yield Wait("outdated", old.text)
    if not facts.works:
        yield Wait("deactivated", "it is inactive in the service")
    if facts.reported_until is not None:
        yield Wait("reported", "it reported that it cannot work", facts.reported_until)
    if facts.backing_off_until is not None:
        yield Wait("backing_off", _why_backing_off(facts), facts.backing_off_until)

    if facts.held >= facts.most:
        yield Wait("at_limit", f"it holds {_buckets(facts.held)}, as many as it may")
    if facts.all_out or facts.budget_until is not None:
        yield _budget(service.settings, facts)
    if facts.held >= facts.most_now:
        yield Wait("newcomer", f"it holds {_buckets(facts.held)}, as many as it may until it has settled more")
    elif facts.crowded:
        yield Wait("newcomer", "the newcomers of its address hold as many buckets as they may together")

    if facts.returned_until is not None:
        yield Wait("returned_all", "only buckets that it gave back lately are ready", facts.returned_until)
    if not facts.ready:
        if facts.queued or facts.split_at is not None:
            yield Wait("making", "buckets are being made", None if facts.queued else facts.split_at)
        else:
            yield Wait("no_items", "there is nothing to do now: others have what is left, or all is done")


def _reasons_for_all(service: Service, *, draining: bool) -> Iterator[Wait]:
    if draining:
        yield Wait("draining", "the server's node is about to end; connect again")
    if service.state != "active":
        yield Wait("paused", f"the service is {service.state}")


def _why_backing_off(facts: WaitFacts) -> str:
    if facts.given_back:
        return f"it gave back {_buckets(facts.given_back)} in a row"
    return "the newcomers of its address gave back many buckets"


def _budget(settings: ServiceSettings, facts: WaitFacts) -> Wait:
    if facts.all_out:
        return Wait("budget", f"all clients together hold {settings.max_claimed_buckets} buckets, as many as they may")
    text = f"the service hands out no more than {settings.items_per_minute} items a minute"
    return Wait("budget", text, facts.budget_until)


def _buckets(number: int) -> str:
    return "1 bucket" if number == 1 else f"{number} buckets"
