// Tables, their pages and their search field; the address keeps the order, the page and the search.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Failure, Loading } from "./components";
import { type LoadedRows, useApp } from "./context";
import type { Cursors } from "./cursors";
import { count } from "./format";
import { useObservable } from "./observable";
import { href, parse, searchStillApplies } from "./route";
import { Scroller } from "./scroller";

export interface Column<T> {
  title: string;
  cell(row: T): ComponentChildren;
  /** The title is for screen readers alone. */
  titleHidden?: boolean;
  /** The cells are numbers and stand on the right. */
  numeric?: boolean;
  /** The server's name of this column, if rows can be sorted by it. */
  sortKey?: string;
  /** Sorted by it, the smallest comes first at first; a second click turns the order round, as in every column. */
  smallestFirst?: boolean;
  /** The cells are the headers of their rows; the first column's are unless another says so. */
  rowHeader?: boolean;
  /** The column is left out on narrow screens. */
  wideOnly?: boolean;
}

interface TableViewProps<T> {
  caption: string;
  columns: readonly Column<T>[];
  loaded: LoadedRows<T>;
  rowKey(row: T): string;
  empty: ComponentChildren;
  /** The sort key that an address without `sort` means. */
  defaultSort?: string;
}

export function TableView<T>({ caption, columns, loaded, rowKey, empty, defaultSort }: TableViewProps<T>) {
  const { rows, error, stale, reload } = loaded;
  if (rows === null) {
    return error === null ? <Loading rows={6} /> : <Failure text={error} reload={reload} />;
  }

  const rowHeader = columns.find((column) => column.rowHeader) ?? columns[0];
  return (
    <>
      {error !== null && <Failure text={error} reload={reload} />}
      {rows.length === 0 ? (
        empty
      ) : (
        <Scroller label={caption}>
          <table aria-busy={stale} class={stale ? "stale" : ""}>
            <caption class="visually-hidden">{caption}</caption>
            <thead>
              <tr>
                {columns.map((column) => (
                  <HeaderCell
                    key={column.title}
                    column={column}
                    {...(defaultSort === undefined ? {} : { defaultSort })}
                  />
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={rowKey(row)}>
                  {columns.map((column) => (
                    <BodyCell key={column.title} column={column} row={row} isHeader={column === rowHeader} />
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </Scroller>
      )}
    </>
  );
}

function BodyCell<T>({ column, row, isHeader }: { column: Column<T>; row: T; isHeader: boolean }) {
  if (isHeader) return <th scope="row">{column.cell(row)}</th>;
  return <td class={cellClass(column)}>{column.cell(row)}</td>;
}

function cellClass<T>(column: Column<T>): string {
  return `${column.numeric ? "numeric-cell" : ""} ${column.wideOnly ? "wide-only" : ""}`.trim();
}

function HeaderCell<T>({ column, defaultSort }: { column: Column<T>; defaultSort?: string }) {
  const { router } = useApp();
  const { path, query } = useObservable(router.route);
  if (column.sortKey === undefined || defaultSort === undefined) {
    return (
      <th scope="col" class={cellClass(column)}>
        {column.titleHidden ? <span class="visually-hidden">{column.title}</span> : column.title}
      </th>
    );
  }

  const sorted = (query.sort ?? defaultSort) === column.sortKey;
  const [usual, other] = column.smallestFirst ? (["asc", "desc"] as const) : (["desc", "asc"] as const);
  const ascending = (query.order === other ? other : usual) === "asc";
  const target = {
    ...query,
    sort: column.sortKey,
    order: sorted && query.order !== other ? other : undefined,
    after: undefined,
    page: undefined,
  };
  return (
    <th scope="col" class={cellClass(column)} aria-sort={sorted ? (ascending ? "ascending" : "descending") : undefined}>
      <a class="sorter" href={href(path, target)}>
        {column.title}
        <span aria-hidden="true">{sorted ? (ascending ? " ↑" : " ↓") : ""}</span>
      </a>
    </th>
  );
}

/** The page of a table that the address names. */
export interface PagePosition {
  /** The server's cursor before the page; null for the first. */
  after: string | null;
  /** Number of the page, from 1. */
  page: number;
}

export function usePagePosition(): PagePosition {
  const { query } = useObservable(useApp().router.route);
  const page = Number.parseInt(query.page ?? "1", 10);
  return { after: query.after ?? null, page: page > 0 ? page : 1 };
}

interface PagerProps {
  position: PagePosition;
  loaded: LoadedRows<unknown>;
  rowsPerPage: number;
  /** Pages may be shorter than that while there is a next one. */
  sparse?: boolean;
}

/** Links to the first, the previous and the next page. */
export function Pager({ position: { page, after }, loaded, rowsPerPage, sparse = false }: PagerProps) {
  const { path, query } = useObservable(useApp().router.route);
  const cursors = usePageCursors({ page, after });
  if (loaded.rows === null || (page === 1 && loaded.next === null)) return null;

  const firstRow = (page - 1) * rowsPerPage + 1;
  const previousAfter = cursors.get(page - 1);
  const pageHref = (page: number, after: string | null): string =>
    href(path, { ...query, page: page === 1 ? undefined : String(page), after: after ?? undefined });

  return (
    <nav class="pager" aria-label="Pages">
      {page > 1 && <a href={pageHref(1, null)}>First</a>}
      {page > 1 && previousAfter !== undefined && (
        <a href={pageHref(page - 1, previousAfter)} rel="prev">
          Previous
        </a>
      )}
      <span class="muted">
        {loaded.stale
          ? "Loading …"
          : sparse
            ? `Page ${count(page)}`
            : `Rows ${count(firstRow)} to ${count(firstRow + loaded.rows.length - 1)}`}
      </span>
      {loaded.next !== null && !loaded.stale && (
        <a href={pageHref(page + 1, loaded.next)} rel="next">
          Next
        </a>
      )}
    </nav>
  );
}

/** The cursors of the pages of this table that were seen. */
function usePageCursors({ page, after }: PagePosition): Cursors {
  const { router, seenPages } = useApp();
  const { path, query } = useObservable(router.route);
  return seenPages.visit(JSON.stringify([path, { ...query, after: undefined, page: undefined }]), page, after);
}

/** Milliseconds without typing after which a search begins. */
const TYPING_PAUSE_MS = 250;

/** A search field whose text is kept in the address. */
export function SearchField({ name, label }: { name: string; label: string }) {
  const { router } = useApp();
  const { query } = useObservable(router.route);
  const [text, setText] = useState(query[name] ?? "");
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const searchedText = useRef(text);

  useEffect(() => {
    if ((query[name] ?? "") !== searchedText.current) {
      searchedText.current = query[name] ?? "";
      setText(searchedText.current);
    }
  }, [query[name]]);

  const search = (typed: string): void => {
    const typedAt = router.route.value;
    setText(typed);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      if (!searchStillApplies(typedAt, parse(location.hash), name)) return;
      searchedText.current = typed;
      router.changeQuery({ [name]: typed, after: undefined, page: undefined });
    }, TYPING_PAUSE_MS);
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
