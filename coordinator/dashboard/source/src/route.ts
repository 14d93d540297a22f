// The address names the page and all that is chosen on it, so that links, reload and the back button work.
import { Observable } from "./observable";

export type Query = Record<string, string | undefined>;

export interface Route {
  path: string[];
  query: Query;
}

/** `#/clients/alice?tab=results` → path `["clients", "alice"]`, query `{tab: "results"}`. */
export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return {
    path: path.split("/").filter(Boolean).map(decodePart),
    query: Object.fromEntries(new URLSearchParams(search)),
  };
}

/** The address of a page; names of the query without a value are left out. */
export function href(path: readonly string[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  const queryString = search.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${queryString ? `?${queryString}` : ""}`;
}

/** Tell whether a search that was typed at one address is still meant at another: not after a link or another search. */
export function searchStillApplies(typedAt: Route, now: Route, name: string): boolean {
  return typedAt.path.join("/") === now.path.join("/") && typedAt.query[name] === now.query[name];
}

/** The query without some filters and from the first page on; null if none of the filters is set. */
export function withoutFilters(query: Query, filters: readonly string[]): Query | null {
  if (!filters.some((name) => query[name])) return null;
  const cleared = filters.map((name) => [name, undefined] as const);
  return { ...query, ...Object.fromEntries(cleared), after: undefined, page: undefined };
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a lone % that someone typed
  }
}

/** Reads and changes the address. */
export class Router {
  readonly route = new Observable<Route>(parse(location.hash));

  constructor() {
    addEventListener("hashchange", () => this.route.set(parse(location.hash)));
  }

  navigate(path: readonly string[], query: Query = {}): void {
    location.hash = href(path, query);
  }

  /** Change the query of the present page.  Without `addToHistory` the back button knows nothing of it. */
  changeQuery(change: Query, addToHistory = false): void {
    const { path, query } = this.route.value;
    const address = href(path, { ...query, ...change });
    if (addToHistory) location.hash = address;
    else {
      history.replaceState(null, "", address);
      this.route.set(parse(address));
    }
  }
}
