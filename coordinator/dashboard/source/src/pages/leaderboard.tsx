import { useCell } from "../cell";
import { useApp, useRows } from "../context";
import { ClientLink, Empty, Meter, Tabs } from "../parts";
import { type Column, Pager, Table, usePaging } from "../table";
import type { LeaderRow } from "../wire";
import { count } from "../words";

const LIMIT = 50;

function columns(most: number): Column<LeaderRow>[] {
  return [
    { title: "Place", cell: (row) => <Place place={row.place} /> },
    { title: "Volunteer", names: true, cell: (row) => <ClientLink id={row.client_id} name={row.screen_name} /> },
    { title: "Items settled", figure: true, cell: (row) => count(row.settled) },
    { title: "Of the first here", wide: true, cell: (row) => <Meter share={row.settled / most} /> },
  ];
}

export function LeaderboardPage() {
  const { query } = useCell(useApp().router.route);
  const paging = usePaging();
  const span = query.span === "all" ? "all" : "day";
  const loaded = useRows<LeaderRow>({
    table: "leaderboard",
    filter: { span },
    after: paging.after,
    limit: LIMIT,
    every: 5,
  });
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Leaderboard</h1>
        <p class="lead">Who has settled most{span === "day" ? " today (by UTC)" : " of all time"}. Thanks to everyone.</p>
        <Tabs
          name="span"
          label="Time counted"
          options={[
            ["day", "Today"],
            ["all", "All time"],
          ]}
        />
      </div>
      <section class="card leaderboard" aria-label="Places">
        <Table
          caption="Volunteers by items settled"
          columns={columns(loaded.rows?.[0]?.settled || 1)}
          loaded={loaded}
          keyOf={(row) => row.client_id}
          empty={<Empty title="Nobody has settled anything yet.">The first place is free.</Empty>}
        />
        <Pager paging={paging} loaded={loaded} limit={LIMIT} />
      </section>
    </>
  );
}

function Place({ place }: { place: number }) {
  return <span class={`place place-${Math.min(place, 4)}`}>{place}</span>;
}

/** The first few, each against the first. */
export function LeaderList({ rows }: { rows: readonly LeaderRow[] }) {
  if (rows.length === 0) return <Empty title="Nobody yet today.">The first place is free.</Empty>;
  const most = rows[0]?.settled || 1;
  return (
    <ol class="leaders">
      {rows.map((row) => (
        <li key={row.client_id}>
          <Place place={row.place} />
          <ClientLink id={row.client_id} name={row.screen_name} />
          <b>{count(row.settled)}</b>
          <Meter share={row.settled / most} />
        </li>
      ))}
    </ol>
  );
}
