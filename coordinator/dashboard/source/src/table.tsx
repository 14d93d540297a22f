// Tables: one look for all, with sorting and pages that stand in the address.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import { type Loaded, useApp } from "./context";
import { Failure, Loading } from "./parts";
import { href } from "./route";
import { count } from "./words";

export interface Column<T> {
  title: string;
  cell(row: T): ComponentChildren;
  /** Figures stand on the right. */
  figure?: boolean;
  /** What the server calls this column when rows are sorted by it. */
  sort?: string;
  /** The column that names the row; the first unless told. */
  names?: boolean;
  /** Left out where there is no room. */
  wide?: boolean;
}

interface TableProps<T> {
  caption: string;
  columns: readonly Column<T>[];
  loaded: Loaded<T>;
  keyOf(row: T): string;
  empty: ComponentChildren;
  /** The column that an address without `sort` means. */
  sorted?: string;
}

export function Table<T>({ caption, columns, loaded, keyOf, empty, sorted }: TableProps<T>) {
  if (loaded.rows === null) {
    return loaded.error === null ? <Loading rows={6} /> : <Failure text={loaded.error} again={loaded.again} />;
  }
  const naming = columns.find((column) => column.names) ?? columns[0];
  return (
    <>
      {loaded.error !== null && <Failure text={loaded.error} again={loaded.again} />}
      {loaded.rows.length === 0 ? (
        empty
      ) : (
        <div class="scroller" role="region" aria-label={caption} tabIndex={0}>
          <table aria-busy={loaded.stale} class={loaded.stale ? "stale" : ""}>
            <caption class="unseen">{caption}</caption>
            <thead>
              <tr>
                {columns.map((column) => (
                  <Head key={column.title} column={column} {...(sorted === undefined ? {} : { sorted })} />
                ))}
              </tr>
            </thead>
            <tbody>
              {loaded.rows.map((row) => (
                <tr key={keyOf(row)}>
                  {columns.map((column) =>
                    column === naming ? (
                      <th key={column.title} scope="row">
                        {column.cell(row)}
                      </th>
                    ) : (
                      <td key={column.title} class={classOf(column)}>
                        {column.cell(row)}
                      </td>
                    ),
                  )}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </>
  );
}

function classOf<T>(column: Column<T>): string {
  return `${column.figure ? "figure-cell" : ""} ${column.wide ? "wide" : ""}`.trim();
}

function Head<T>({ column, sorted }: { column: Column<T>; sorted?: string }) {
  const { router } = useApp();
  const { path, query } = useCell(router.route);
  if (column.sort === undefined || sorted === undefined) {
    return (
      <th scope="col" class={classOf(column)}>
        {column.title}
      </th>
    );
  }
  const here = (query.sort ?? sorted) === column.sort;
  const order = column.sort === "client_id" ? "ascending" : "descending";
  return (
    <th scope="col" class={classOf(column)} aria-sort={here ? order : undefined}>
      <a class="sorter" href={href(path, { ...query, sort: column.sort, after: undefined, page: undefined })}>
        {column.title}
        <span aria-hidden="true">{here ? (order === "ascending" ? " ↑" : " ↓") : ""}</span>
      </a>
    </th>
  );
}

export interface Paging {
  after: string | null;
  page: number;
}

/** Where in a table the address is. */
export function usePaging(): Paging {
  const { query } = useCell(useApp().router.route);
  const page = Number.parseInt(query.page ?? "1", 10);
  return { after: query.after ?? null, page: page > 0 ? page : 1 };
}

/** Back and forth by whole pages.  The server knows only the way on, so the way back is remembered here. */
export function Pager({ paging, loaded, limit }: { paging: Paging; loaded: Loaded<unknown>; limit: number }) {
  const { router } = useApp();
  const { path, query } = useCell(router.route);
  const trail = useRef(new Map<number, string | null>());
  const question = JSON.stringify([path, { ...query, after: undefined, page: undefined }]);
  const asked = useRef(question);
  if (asked.current !== question) {
    asked.current = question;
    trail.current.clear();
  }
  trail.current.set(1, null);
  trail.current.set(paging.page, paging.after);
  if (loaded.rows === null || (paging.page === 1 && loaded.next === null)) return null;
  const first = (paging.page - 1) * limit + 1;
  const before = trail.current.get(paging.page - 1);
  const to = (page: number, after: string | null): string =>
    href(path, { ...query, page: page === 1 ? undefined : String(page), after: after ?? undefined });
  return (
    <nav class="pager" aria-label="Pages">
      {paging.page > 1 && <a href={to(1, null)}>First</a>}
      {paging.page > 1 && before !== undefined && (
        <a href={to(paging.page - 1, before)} rel="prev">
          Previous
        </a>
      )}
      <span class="muted">
        {loaded.stale ? "Loading …" : `Rows ${count(first)} to ${count(first + loaded.rows.length - 1)}`}
      </span>
      {loaded.next !== null && !loaded.stale && (
        <a href={to(paging.page + 1, loaded.next)} rel="next">
          Next
        </a>
      )}
    </nav>
  );
}

/** A search that follows the typing, but not every key of it. */
export function Search({ name, label }: { name: string; label: string }) {
  const { router } = useApp();
  const { query } = useCell(router.route);
  const [text, setText] = useState(query[name] ?? "");
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const told = useRef(text);
  useEffect(() => {
    if ((query[name] ?? "") !== told.current) {
      told.current = query[name] ?? "";
      setText(told.current);
    }
  }, [query[name]]);
  const search = (words: string): void => {
    setText(words);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      told.current = words;
      router.refine({ [name]: words, after: undefined, page: undefined });
    }, 250);
  };
  return (
    <label class="field">
      <span>{label}</span>
      <input
        type="search"
        data-search
        maxLength={64}
        value={text}
        autocomplete="off"
        spellcheck={false}
        onInput={(event) => search(event.currentTarget.value)}
      />
    </label>
  );
}
