import { useCell } from "../cell";
import { useApp, useNow, useTopic } from "../context";
import { ActButton, useMay } from "../dialog";
import { Ago, Badge, Card, Empty, Figure, Loading } from "../parts";
import { type Column, Table } from "../table";
import type { DatabaseLoad, NodeRow, Rows, StatementRow } from "../wire";
import { bytes, count, milliseconds, NONE, plural, rate, span } from "../words";

export function NodesPage() {
  const nodes = useTopic<Rows<NodeRow>>("nodes");
  const database = useTopic<DatabaseLoad>("database");
  const offered = useCell(useApp().live.topics).includes("database");
  const now = useNow();
  const mayDrain = useMay("admin");
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Nodes and database</h1>
        <p class="lead">Each node says with every renewal of its lease how it is.</p>
      </div>
      <section class="card" aria-label="Nodes">
        <Table
          caption="Nodes"
          columns={nodeColumns(now, mayDrain)}
          loaded={ready(nodes?.data.rows ?? null)}
          keyOf={(row) => `${row.node} ${row.boot}`}
          empty={<Empty title="There are no nodes." />}
        />
      </section>
      {database !== null && <Database load={database.data} />}
      {database === null && offered && <Loading rows={4} />}
    </>
  );
}

/** Rows of a snapshot, for a table. */
function ready<T>(rows: T[] | null) {
  return { rows, next: null, stale: false, error: null, missing: false, again: () => undefined };
}

function nodeColumns(now: number, mayDrain: boolean): Column<NodeRow>[] {
  return [
    { title: "Node", cell: (row) => <b class="name">{row.node}</b> },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Sessions", figure: true, cell: (row) => count(row.sessions) },
    { title: "Items/s", figure: true, cell: (row) => rate(row.items_per_second) },
    { title: "CPU", figure: true, cell: (row) => `${row.cpu.toFixed(2)} cores` },
    { title: "Memory", figure: true, cell: (row) => bytes(row.memory) },
    { title: "Loop late", figure: true, cell: (row) => milliseconds(row.lag * 1000) },
    { title: "Lease", figure: true, cell: (row) => leaseWords(row, now) },
    { title: "Up since", figure: true, cell: (row) => <Ago time={row.started_at} now={now} /> },
    { title: "Version", figure: true, wide: true, cell: (row) => row.version },
    ...(mayDrain ? [{ title: "Operation", cell: (row: NodeRow) => <DrainButton row={row} /> }] : []),
  ];
}

function leaseWords(row: NodeRow, now: number): string {
  const left = (Date.parse(row.lease_until) - now) / 1000;
  if (row.state === "gone") return NONE;
  return left > 0 ? `${span(left)} left` : `over since ${span(-left)}`;
}

function DrainButton({ row }: { row: NodeRow }) {
  if (row.state !== "live") return null;
  return (
    <ActButton
      act={{
        name: "Drain",
        operation: { type: "node.drain", fields: { node: row.node } },
        effect: `${row.node} hands out no more work, lets its clients finish, closes their sessions and ends.`,
        done: () => `${row.node} drains.`,
        needs: "admin",
        danger: true,
      }}
    />
  );
}

const STATEMENT_COLUMNS: Column<StatementRow>[] = [
  { title: "Statement", cell: (row) => <code>{row.statement}</code> },
  { title: "Calls", figure: true, cell: (row) => count(row.calls) },
  { title: "Rows", figure: true, cell: (row) => count(row.rows) },
  { title: "Time", figure: true, cell: (row) => milliseconds(row.milliseconds) },
  { title: "Each", figure: true, cell: (row) => (row.calls === 0 ? NONE : milliseconds(row.milliseconds / row.calls)) },
];

function Database({ load }: { load: DatabaseLoad }) {
  const statements = [...load.statements].sort((one, other) => other.milliseconds - one.milliseconds);
  return (
    <Card title={`Database load of ${load.node}`}>
      <dl class="figures-row inner">
        <Figure name="Busy" value={`${load.busy.toFixed(2)} s/s`} note="seconds of statements in each second" />
        <Figure name="Statements" value={`${rate(load.statements_per_second)}/s`} note={`${rate(load.rows_per_second)} rows/s`} />
        <Figure
          name="Per bucket"
          value={load.statements_per_bucket === null ? NONE : load.statements_per_bucket.toFixed(1)}
          note={perBucket(load)}
        />
        <Figure
          name="Pool"
          value={count(load.pool_size)}
          note={`connections; ${plural(load.pool_waits, "wait")}, ${milliseconds(load.pool_waited * 1000)} in all`}
        />
      </dl>
      <Table
        caption="What the statements of this node have cost since it started"
        columns={STATEMENT_COLUMNS}
        loaded={ready(statements)}
        keyOf={(row) => row.statement}
        empty={<Empty title="No statement has run yet." />}
      />
    </Card>
  );
}

function perBucket(load: DatabaseLoad): string {
  if (load.rows_per_bucket === null || load.milliseconds_per_bucket === null) return "no submit in the last minute";
  return `statements, ${rate(load.rows_per_bucket)} rows, ${milliseconds(load.milliseconds_per_bucket)}`;
}
