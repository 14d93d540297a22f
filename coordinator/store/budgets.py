"""How much of the budgets of services is spent, as `budget_left` of the schema sees it; for those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.model import Service, ServiceId
from coordinator.store.claim_rules import budget_rule
from coordinator.store.pool import Connection

# $1 services
# $2 items a minute, $3 buckets that all clients hold, of each; null: any number
_SPENT = """
SELECT s.service_id,
       CASE WHEN s.items_a_minute IS NOT NULL THEN items_of_minute(s.service_id) END AS items,
       CASE WHEN s.most_claimed IS NOT NULL
            THEN (SELECT count(*) FROM bucket b
                   WHERE b.service_id = s.service_id AND b.state IN ('claimed', 'dead')) END AS buckets
  FROM unnest($1::int[], $2::int[], $3::int[]) AS s (service_id, items_a_minute, most_claimed)"""


@dataclass(frozen=True, slots=True)
class SpentBudget:
    """Items handed out in the last minute, and buckets held now; None where there is no such budget."""

    items: int | None
    buckets: int | None


async def spent(db: Connection, services: Sequence[Service]) -> dict[ServiceId, SpentBudget]:
    """Tell what is spent of the budgets of those services that have some; costs a look at what was handed out."""
    limited = [service for service in services if service.settings.has_budget]
    if not limited:
        return {}
    rules = [budget_rule(service.settings) for service in limited]
    rows = await db.fetch(
        _SPENT, [service.service_id for service in limited], [rule[0] for rule in rules], [rule[1] for rule in rules]
    )
    return {ServiceId(row["service_id"]): SpentBudget(row["items"], row["buckets"]) for row in rows}
