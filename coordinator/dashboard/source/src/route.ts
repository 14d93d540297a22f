// Where the reader is: all of it in the address, so that links, reload and the back button do what they should.
import { Cell } from "./cell";

export type Query = Record<string, string | undefined>;

export interface Route {
  path: string[];
  query: Query;
}

/** `#/clients/alice?tab=results` → path `["clients", "alice"]`, query `{tab: "results"}`. */
export function parse(hash: string): Route {
  const [path = "", search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return {
    path: path.split("/").filter(Boolean).map(decode),
    query: Object.fromEntries(new URLSearchParams(search)),
  };
}

/** The address of a place; parts of the query that are not set or empty are left out. */
export function href(path: readonly string[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  const words = search.toString();
  return `#/${path.map(encodeURIComponent).join("/")}${words ? `?${words}` : ""}`;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a lone % that someone typed
  }
}

/** The place in the address bar. */
export class Router {
  readonly route = new Cell<Route>(parse(location.hash));

  constructor() {
    addEventListener("hashchange", () => this.route.set(parse(location.hash)));
  }

  go(path: readonly string[], query: Query = {}): void {
    location.hash = href(path, query);
  }

  /** Change the query of this place, without a step in the history unless asked: typing makes none. */
  refine(change: Query, step = false): void {
    const { path, query } = this.route.value;
    const next = href(path, { ...query, ...change });
    if (step) location.hash = next;
    else {
      history.replaceState(null, "", next);
      this.route.set(parse(next));
    }
  }
}
