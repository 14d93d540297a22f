// The pages of a table that were seen, so that there is a way back: the server tells only the cursor of the next one.

const STORAGE_KEY = "coordinator.pages";
/** Pages whose cursors are remembered; the way back ends before the oldest of them. */
const MAX_PAGES = 500;

/** The cursor before each page; null for the first. */
export type Cursors = ReadonlyMap<number, string | null>;

interface Stored {
  table: string;
  cursors: [number, string | null][];
}

/** Remembers the cursors of one table, also over a reload of the tab. */
export class SeenPages {
  private table = "";
  private cursors = new Map<number, string | null>();

  constructor(private readonly storage: Pick<Storage, "getItem" | "setItem">) {
    const stored = storage.getItem(STORAGE_KEY);
    if (stored === null) return;
    const { table, cursors } = JSON.parse(stored) as Stored;
    this.table = table;
    this.cursors = new Map(cursors);
  }

  /** Note that a page is shown, and return the cursors of all that were seen of its table. */
  visit(table: string, page: number, after: string | null): Cursors {
    if (table !== this.table) {
      this.table = table;
      this.cursors = new Map([[1, null]]);
    }

    if (this.cursors.get(page) !== after) {
      this.cursors.set(page, after);
      const oldest = [...this.cursors.keys()].find((seen) => seen !== 1);
      if (this.cursors.size > MAX_PAGES && oldest !== undefined) this.cursors.delete(oldest);
      this.storage.setItem(STORAGE_KEY, JSON.stringify({ table, cursors: [...this.cursors] } satisfies Stored));
    }
    return this.cursors;
  }
}
