// Events of one kind that repeat, as one line.
import type { EventRow } from "./wire";

/** Milliseconds between two events up to which the later one repeats the earlier. */
const REPEATS_WITHIN_MS = 10 * 60_000;

/** An event and its repeats, the newest first. */
export interface EventGroup {
  newest: EventRow;
  rows: EventRow[];
}

/** Put events together that are of the same things and say the same, but for figures; they come newest first. */
export function groupEvents(rows: readonly EventRow[]): EventGroup[] {
  const groups: EventGroup[] = [];
  const lastOf = new Map<string, EventGroup>();

  for (const row of rows) {
    const { kind, severity, node, client_id, service, text } = row;
    const key = JSON.stringify([kind, severity, node, client_id, service, text.replace(/\d+/g, "0")]);
    const group = lastOf.get(key);
    const earlier = group?.rows[group.rows.length - 1];
    if (group !== undefined && earlier !== undefined && Date.parse(earlier.at) - Date.parse(row.at) <= REPEATS_WITHIN_MS) {
      group.rows.push(row);
      continue;
    }

    const opened = { newest: row, rows: [row] };
    groups.push(opened);
    lastOf.set(key, opened);
  }
  return groups;
}
