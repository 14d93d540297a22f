// What one client did: its pace and its faults by the hour, its results beside the others', what was refused, and why
// its health changed.
import { useMemo } from "preact/hooks";
import { Chart, type ChartLine } from "../chart";
import { Card, Empty, Loading, ServiceLink } from "../components";
import { useNow, useRows } from "../context";
import { count, dayAndTime, percent, plural } from "../format";
import { type Column, TableView } from "../table";
import type { ClientHour, EventRow, Outcome } from "../wire";
import { EventList } from "./events";

const HOUR_SECONDS = 3_600;
const HOURS_SHOWN = 48;
const EVENTS_SHOWN = 20;

const NO_HOURS: readonly ClientHour[] = [];

export function ClientRecord({ client }: { client: string }) {
  return (
    <div class="column">
      <PaceCard client={client} />
      <OutcomesCard client={client} />
      <ClientEventsCard client={client} title="Refused submits" kind="refused" none="No refused submit is known." />
      <ClientEventsCard client={client} title="Why its health changed" kind="health" none="No change of its health is known." />
    </div>
  );
}

function PaceCard({ client }: { client: string }) {
  const loaded = useRows<ClientHour>({
    table: "client_hours",
    filter: { client_id: client },
    limit: 1000,
    refreshSeconds: 20,
  });
  const withFaults = (loaded.rows ?? []).filter((row) => row.given_back + row.dead + row.disconnects > 0);

  return (
    <Card title="Pace and faults of the last 48 hours">
      {loaded.rows === null && loaded.error === null && <Loading rows={4} />}
      {loaded.error !== null && <p class="refusal">{loaded.error}</p>}
      <HourChart rows={loaded.rows ?? NO_HOURS} />
      <TableView
        caption="Hours in which buckets came back or died"
        columns={FAULT_COLUMNS}
        loaded={{ ...loaded, rows: loaded.rows === null ? null : withFaults }}
        rowKey={(row) => `${row.at} ${row.service}`}
        empty={<p class="muted">No bucket came back or died in this time.</p>}
      />
    </Card>
  );
}

/** Draw the items settled in each of the last hours. */
export function HourChart({ rows }: { rows: readonly ClientHour[] }) {
  const end = Math.floor(useNow(60) / 1000 / HOUR_SECONDS) * HOUR_SECONDS;
  const [times, lines] = useMemo(() => hourLines(rows, end), [rows, end]);
  return (
    <Chart
      label="Items settled in each hour"
      unit="items/h"
      times={times}
      lines={lines}
      formatTime={(seconds) => dayAndTime(seconds * 1000)}
    />
  );
}

/** Items settled, and buckets lost, in each hour up to `end`, in seconds since 1970. */
function hourLines(rows: readonly ClientHour[], end: number): [number[], ChartLine[]] {
  const begins = Array.from({ length: HOURS_SHOWN }, (_, hour) => end - (HOURS_SHOWN - 1 - hour) * HOUR_SECONDS);
  const settled = new Map<number, number>();
  for (const row of rows) {
    const begin = Date.parse(row.at) / 1000;
    settled.set(begin, (settled.get(begin) ?? 0) + row.settled);
  }
  const values = begins.map((begin) => settled.get(begin) ?? 0);
  return [begins, [{ name: "items settled", colour: "--chart", values, filled: true }]];
}

const FAULT_COLUMNS: Column<ClientHour>[] = [
  { title: "Hour", cell: ({ at }) => <time class="moment" dateTime={at}>{dayAndTime(at)}</time> },
  { title: "Service", cell: ({ service }) => <ServiceLink service={service} /> },
  { title: "Claims", numeric: true, cell: ({ claims }) => count(claims) },
  { title: "Given back", numeric: true, cell: ({ given_back }) => count(given_back) },
  { title: "Dead", numeric: true, cell: ({ dead }) => count(dead) },
  { title: "Cut off", numeric: true, cell: ({ disconnects }) => count(disconnects) },
];

function OutcomesCard({ client }: { client: string }) {
  const loaded = useRows<Outcome>({ table: "outcomes", filter: { client_id: client }, refreshSeconds: 20 });
  const totals = new Map<string, { own: number; others: number }>();
  for (const { service, own, others } of loaded.rows ?? []) {
    const total = totals.get(service) ?? { own: 0, others: 0 };
    totals.set(service, { own: total.own + own, others: total.others + others });
  }
  const totalOf = (row: Outcome): { own: number; others: number } => totals.get(row.service) ?? { own: 0, others: 0 };

  return (
    <Card title="Its results beside the others', last 6 hours">
      <TableView
        caption="Share of each kind of result: its own, and that of all others"
        columns={[
          { title: "Result", cell: ({ label }) => <span class="name">{label}</span> },
          { title: "Service", cell: ({ service }) => <ServiceLink service={service} /> },
          {
            title: "Its share",
            numeric: true,
            cell: (row) => <span title={plural(row.own, "result")}>{percent(row.own, totalOf(row).own)}</span>,
          },
          {
            title: "The others'",
            numeric: true,
            cell: (row) => <span title={plural(row.others, "result")}>{percent(row.others, totalOf(row).others)}</span>,
          },
        ]}
        loaded={loaded}
        rowKey={(row) => `${row.service} ${row.label}`}
        empty={<Empty title="No results in this time." />}
      />
    </Card>
  );
}

function ClientEventsCard(props: { client: string; title: string; kind: string; none: string }) {
  const now = useNow();
  const loaded = useRows<EventRow>({
    table: "events",
    filter: { client_id: props.client, kind: props.kind },
    limit: EVENTS_SHOWN,
    refreshSeconds: 5,
  });
  return (
    <Card title={props.title}>
      {loaded.error !== null && <p class="refusal">{loaded.error}</p>}
      {loaded.rows === null ? (
        loaded.error === null && <Loading rows={3} />
      ) : loaded.rows.length === 0 ? (
        <Empty title={props.none} />
      ) : (
        <EventList rows={loaded.rows} now={now} />
      )}
    </Card>
  );
}
