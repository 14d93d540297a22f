import { Badge, ClientLink, Empty, Meter, Tabs } from "../components";
import { useApp, useRows } from "../context";
import { count } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type Column, Pager, TableView, usePagePosition } from "../table";
import type { LeaderRow, Span } from "../wire";

const PLACES_PER_PAGE = 50;

const SPANS: readonly (readonly [Span, string])[] = [
  ["day", "Today"],
  ["week", "This week"],
  ["month", "This month"],
  ["all", "All time"],
];
const SPAN_WORDS: Record<Span, string> = {
  day: "today",
  week: "this week, since Monday",
  month: "this month",
  all: "of all time",
};

function leaderColumns(firstSettled: number): Column<LeaderRow>[] {
  return [
    { title: "Place", cell: (row) => <PlaceBadge place={row.place} /> },
    { title: "Volunteer", rowHeader: true, cell: (row) => <Volunteer row={row} /> },
    { title: "Items settled", numeric: true, cell: (row) => count(row.settled) },
    { title: "Of the first here", wideOnly: true, cell: (row) => <Meter share={row.settled / firstSettled} /> },
  ];
}

export function LeaderboardPage() {
  const { query } = useObservable(useApp().router.route);
  const position = usePagePosition();
  const span = SPANS.find(([name]) => name === query.span)?.[0] ?? "day";
  const loaded = useRows<LeaderRow>({
    table: "leaderboard",
    filter: { span },
    after: position.after,
    limit: PLACES_PER_PAGE,
    refreshSeconds: 5,
  });

  return (
    <>
      <PageHead
        title="Leaderboard"
        lead={`Who has settled most ${SPAN_WORDS[span]}${span === "all" ? "" : " (by UTC)"}. Thanks to everyone.`}
      >
        <Tabs name="span" label="Time counted" options={SPANS} />
      </PageHead>
      <section class="card leaderboard" aria-label="Places">
        <TableView
          caption="Volunteers by items settled"
          columns={leaderColumns(loaded.rows?.[0]?.settled || 1)}
          loaded={loaded}
          rowKey={(row) => row.client_id}
          empty={<Empty title="Nobody has settled anything yet.">The first place is free.</Empty>}
        />
        <Pager position={position} loaded={loaded} rowsPerPage={PLACES_PER_PAGE} />
      </section>
    </>
  );
}

export function PlaceBadge({ place }: { place: number }) {
  return <span class={`place place-${Math.min(place, 4)}`}>{place}</span>;
}

/** A volunteer; one that is flagged is marked, for its results may be wrong. */
function Volunteer({ row }: { row: LeaderRow }) {
  return (
    <span class="volunteer">
      <ClientLink id={row.client_id} name={row.screen_name} />
      {row.flagged && <Badge word="flagged" />}
    </span>
  );
}

/** The first volunteers of a short list, each compared with the first. */
export function LeaderList({ rows }: { rows: readonly LeaderRow[] }) {
  if (rows.length === 0) return <Empty title="Nobody yet today.">The first place is free.</Empty>;
  const firstSettled = rows[0]?.settled || 1;

  return (
    <ol class="leaders">
      {rows.map((row) => (
        <li key={row.client_id}>
          <PlaceBadge place={row.place} />
          <Volunteer row={row} />
          <b>{count(row.settled)}</b>
          <Meter share={row.settled / firstSettled} />
        </li>
      ))}
    </ol>
  );
}
