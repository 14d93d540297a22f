// The estimated time until all is done, in words.
import { durationRange, plural } from "./format";
import type { Eta, Items, Overview, Progress, ServiceRow } from "./wire";

/** Words for the time, and a note that goes with them. */
export interface EtaWords {
  text: string;
  note: string | null;
}

/** Tell whether clients have worked on it in the last minutes. */
export function isWorkedOn({ demand, items_per_second }: Pick<ServiceRow, "demand" | "items_per_second">): boolean {
  return demand.active > 0 || items_per_second > 0;
}

/** The time until what is worked on is done; what else is left of `services` is named beside it. */
export function overviewEta(
  overview: Pick<Overview, "items" | "eta" | "demand" | "items_per_second">,
  services: readonly ServiceRow[] = [],
): EtaWords {
  const done = finished(overview.items);
  if (done !== null) return done;
  if (!isWorkedOn(overview)) return words("nobody works");

  const leftOut = services.filter((row) => finished(row.items) === null && !(row.state === "active" && isWorkedOn(row)));
  const { text, note } = estimate(overview.eta);
  if (leftOut.length === 0) return words(text, note);
  return words(text, without(leftOut));
}

export function serviceEta(row: Pick<ServiceRow, "items" | "eta" | "demand" | "items_per_second" | "state">): EtaWords {
  const done = finished(row.items);
  if (done !== null) return done;
  if (row.state !== "active") return words(row.state);
  if (isWorkedOn(row)) return estimate(row.eta);
  return words("nobody works on it", row.eta && `${range(row.eta)} of work at the last pace`);
}

/** The time until all is done, for everybody. */
export function progressEta({ settled, total, eta, services }: Progress): EtaWords {
  if (total === 0) return words("no items");
  if (settled >= total || (eta !== null && eta.high === 0)) return words("all done");

  const left = services.filter((row) => row.settled < row.total);
  const idle = left.filter((row) => row.state !== "active" || (row.volunteers === 0 && row.items_per_second === 0));
  if (idle.length === left.length) return words("nobody works now");
  return idle.length === 0 ? estimate(eta) : words(estimate(eta).text, without(idle));
}

/** The note that services are left out in which nobody works. */
function without(leftOut: readonly { service: string }[]): string {
  return `without ${leftOut.length === 1 ? leftOut[0]?.service : plural(leftOut.length, "service")}: nobody works there`;
}

function finished(items: Items): EtaWords | null {
  if (items.total === 0) return words("no items");
  return items.settled + items.quarantined >= items.total ? words("all done") : null;
}

function estimate(eta: Eta | null): EtaWords {
  return eta === null ? words("no estimate yet") : words(range(eta), "of time in which work goes on");
}

function range({ low, high }: Eta): string {
  return durationRange(low, high);
}

function words(text: string, note: string | null = null): EtaWords {
  return { text, note };
}
