// What asks for a person, each with the page that shows it.
import { isWorkedOn } from "./eta";
import { milliseconds, plural } from "./format";
import type { Query } from "./route";
import type { EventRow, Overview, ServiceRow } from "./wire";

export interface Concern {
  text: string;
  path: string[];
  query?: Query;
}

/** Milliseconds for which a node that is gone asks for a person. */
const GONE_NODE_MS = 3_600_000;

/** Seconds for a small change from which on a database is slow: on a disk of its own it takes some milliseconds. */
export const SLOW_DATABASE_SECONDS = 0.25;

/** The concerns of all work, the most pressing first; `services` and the serious `events` are those that are shown. */
export function concerns(
  { faults, clients, items, demand, database_delay }: Pick<
    Overview,
    "faults" | "clients" | "items" | "demand" | "database_delay"
  >,
  services: readonly ServiceRow[],
  events: readonly Pick<EventRow, "kind" | "at">[],
  now: number,
): Concern[] {
  const found: Concern[] = [];
  const gone = events.filter(({ kind, at }) => kind === "node" && now - Date.parse(at) < GONE_NODE_MS).length;
  if (gone > 0) {
    found.push({ text: `${plural(gone, "node")} gone in the last hour`, path: ["nodes"] });
  }
  if (faults > 0) {
    found.push({ text: `${plural(faults, "fault")} in the last hour`, path: ["events"], query: { kind: "fault" } });
  }
  if (database_delay >= SLOW_DATABASE_SECONDS) {
    found.push({ text: `the database is slow: ${milliseconds(database_delay * 1000)} for a small change`, path: ["nodes"] });
  }
  if (clients.flagged > 0) {
    found.push({ text: plural(clients.flagged, "flagged client"), path: ["clients"], query: { health: "flagged" } });
  }
  if (items.quarantined > 0) {
    const text = plural(items.quarantined, "quarantined item");
    found.push({ text, path: ["events"], query: { kind: "quarantine" } });
  }

  const abandoned = services.filter((row) => row.state === "active" && hasWork(row) && !isWorkedOn(row));
  if (abandoned.length === 1 && abandoned[0] !== undefined) {
    const { service } = abandoned[0];
    found.push({ text: `nobody works on ${service}`, path: ["services", service] });
  } else if (abandoned.length > 1) {
    found.push({ text: `nobody works on ${abandoned.length} services`, path: ["services"], query: { state: "active" } });
  }

  if (demand.reasons.budget) {
    const spent = services.filter((row) => row.demand.reasons.budget);
    const path = spent.length === 1 && spent[0] !== undefined ? ["services", spent[0].service] : ["services"];
    found.push({ text: `budget spent of ${spent.length === 1 ? spent[0]?.service : plural(spent.length, "service")}`, path });
  }
  return found;
}

function hasWork({ items }: ServiceRow): boolean {
  return items.settled + items.quarantined < items.total;
}
