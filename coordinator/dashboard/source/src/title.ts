// The page's title: it tells of trouble first, so that it is seen among the tabs.
import { plural } from "./format";
import type { Overview } from "./wire";

export function pageTitle(heading: string | null, trouble: string | null): string {
  return [trouble, heading, "Coordinator"].filter(Boolean).join(" · ");
}

/** The worst of what is wrong; null if nothing is.  `overview` is null where its figures are not shown. */
export function troubleText(
  phase: string,
  away: boolean,
  overview: Pick<Overview, "clients" | "faults"> | null,
): string | null {
  if (phase === "refused") return "Not allowed";
  if (away) return "Server away";
  if (overview === null) return null;
  if (overview.faults > 0) return plural(overview.faults, "fault");
  return overview.clients.flagged > 0 ? `${overview.clients.flagged} flagged` : null;
}
