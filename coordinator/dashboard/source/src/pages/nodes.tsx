import { useState } from "preact/hooks";
import { TimeAgo, Badge, Card, Empty, Figure, Loading, Name } from "../components";
import { SLOW_DATABASE_SECONDS } from "../concerns";
import { knownRows, useApp, useNow, useRows, useTopic } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { bytes, count, duration, milliseconds, NO_VALUE, plural, rate } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type Column, TableView } from "../table";
import type { DatabaseLoad, NodeRow, FirstRows, StatementRow } from "../wire";

export function NodesPage() {
  const nodes = useTopic<FirstRows<NodeRow>>("nodes");
  const database = useTopic<DatabaseLoad>("database");
  const offersDatabase = useObservable(useApp().connection.topics).includes("database");
  const now = useNow();
  const mayDrain = useHasRole("admin");

  return (
    <>
      <PageHead title="Nodes and database" lead="Each node says with every renewal of its lease how it is." />
      <section class="card" aria-label="Nodes">
        <TableView
          caption="Nodes"
          columns={nodeColumns(now, mayDrain)}
          loaded={knownRows(nodes?.data.rows ?? null)}
          rowKey={(row) => `${row.node} ${row.boot}`}
          empty={<Empty title="There are no nodes." />}
        />
      </section>
      <GoneNodes now={now} />
      {database !== null && <DatabaseCard load={database.data} />}
      {database === null && offersDatabase && <Loading rows={4} />}
    </>
  );
}

/** Milliseconds for which a node that is gone is shown. */
const GONE_SHOWN_MS = 86_400_000;
const MAX_GONE_NODES = 100;

/** Nodes that have ended in the last day, the newest start first. */
function GoneNodes({ now }: { now: number }) {
  const loaded = useRows<NodeRow>({
    table: "nodes",
    filter: { state: "gone" },
    limit: MAX_GONE_NODES,
    refreshSeconds: 5,
  });
  const lately = loaded.rows?.filter(({ ended_at }) => ended_at !== null && now - Date.parse(ended_at) < GONE_SHOWN_MS);
  if (loaded.error === null && lately?.length === 0) return null;

  return (
    <Card title="Gone in the last day">
      <TableView
        caption="Nodes that are gone"
        columns={goneColumns(now)}
        loaded={{ ...loaded, rows: lately ?? null }}
        rowKey={(row) => `${row.node} ${row.boot}`}
        empty={null}
      />
    </Card>
  );
}

function goneColumns(now: number): Column<NodeRow>[] {
  return [
    { title: "Node", cell: (row) => <NodeName row={row} /> },
    { title: "Why", cell: (row) => <span class="reason">{row.end_reason}</span> },
    { title: "Gone", numeric: true, cell: (row) => <TimeAgo time={row.ended_at} now={now} /> },
    { title: "Was up for", numeric: true, cell: upTime },
    { title: "Version", numeric: true, wideOnly: true, cell: (row) => row.version },
  ];
}

function upTime({ started_at, ended_at }: NodeRow): string {
  return ended_at === null ? NO_VALUE : duration((Date.parse(ended_at) - Date.parse(started_at)) / 1000);
}

function nodeColumns(now: number, mayDrain: boolean): Column<NodeRow>[] {
  return [
    { title: "Node", cell: (row) => <NodeName row={row} /> },
    { title: "State", cell: (row) => <Badge word={row.state} /> },
    { title: "Sessions", numeric: true, cell: (row) => count(row.sessions) },
    { title: "Items/s", numeric: true, cell: (row) => rate(row.items_per_second) },
    { title: "CPU", numeric: true, cell: (row) => `${row.cpu.toFixed(2)} cores` },
    { title: "Memory", numeric: true, cell: (row) => bytes(row.memory) },
    { title: "Loop late", numeric: true, cell: (row) => milliseconds(row.lag * 1000) },
    { title: "Database", numeric: true, cell: (row) => <DatabaseDelay seconds={row.database_delay} /> },
    { title: "Lease", numeric: true, cell: (row) => leaseText(row, now) },
    { title: "Up since", numeric: true, cell: (row) => <TimeAgo time={row.started_at} now={now} /> },
    { title: "Version", numeric: true, wideOnly: true, cell: (row) => row.version },
    ...(mayDrain ? [{ title: "Operation", cell: (row: NodeRow) => <DrainButton row={row} /> }] : []),
  ];
}

function NodeName({ row }: { row: NodeRow }) {
  return (
    <b>
      <Name text={row.node} />
    </b>
  );
}

/** How long a small change takes; a slow database is named so. */
function DatabaseDelay({ seconds }: { seconds: number }) {
  if (seconds === 0) return NO_VALUE;
  return (
    <>
      {seconds >= SLOW_DATABASE_SECONDS && <Badge word="slow" tone="warn" />} {milliseconds(seconds * 1000)}
    </>
  );
}

function leaseText(row: NodeRow, now: number): string {
  const left = (Date.parse(row.lease_until) - now) / 1000;
  if (row.state === "gone") return NO_VALUE;
  return left > 0 ? `${duration(left)} left` : `over since ${duration(-left)}`;
}

function DrainButton({ row }: { row: NodeRow }) {
  if (row.state !== "live") return null;
  return (
    <OperationButton
      action={{
        label: "Drain",
        operation: { type: "node.drain", fields: { node: row.node } },
        effect: `${row.node} hands out no more work, lets its clients finish, closes their sessions and ends.`,
        doneText: () => `${row.node} drains.`,
        requiredRole: "admin",
        shownState: row.state,
        danger: true,
      }}
    />
  );
}

/** Statements that are shown until all are asked for, the dearest ones. */
const FOLDED_STATEMENTS = 10;

const STATEMENT_COLUMNS: Column<StatementRow>[] = [
  { title: "Statement", cell: (row) => <code>{row.statement}</code> },
  { title: "Calls", numeric: true, cell: (row) => count(row.calls) },
  { title: "Rows", numeric: true, cell: (row) => count(row.rows) },
  { title: "Time", numeric: true, cell: (row) => milliseconds(row.milliseconds) },
  {
    title: "Each",
    numeric: true,
    cell: (row) => (row.calls === 0 ? NO_VALUE : milliseconds(row.milliseconds / row.calls)),
  },
];

function DatabaseCard({ load }: { load: DatabaseLoad }) {
  const [unfolded, setUnfolded] = useState(false);
  const statements = [...load.statements].sort((left, right) => right.milliseconds - left.milliseconds);
  const shown = unfolded ? statements : statements.slice(0, FOLDED_STATEMENTS);

  return (
    <Card title={`Database load of ${load.node}`}>
      <dl class="figures-row inner">
        <Figure name="Busy" value={`${load.busy.toFixed(2)} s/s`} note="seconds of statements in each second" />
        <Figure
          name="Statements"
          value={`${rate(load.statements_per_second)}/s`}
          note={`${rate(load.rows_per_second)} rows/s`}
        />
        <Figure
          name="Per bucket"
          value={load.statements_per_bucket === null ? NO_VALUE : load.statements_per_bucket.toFixed(1)}
          note={perBucketNote(load)}
        />
        <Figure
          name="Pool"
          value={count(load.pool_size)}
          note={`connections; ${plural(load.pool_waits, "wait")}, ${milliseconds(load.pool_waited * 1000)} in all`}
        />
      </dl>
      <TableView
        caption="What the statements of this node have cost since it started"
        columns={STATEMENT_COLUMNS}
        loaded={knownRows(shown)}
        rowKey={(row) => row.statement}
        empty={<Empty title="No statement has run yet." />}
      />
      {statements.length > FOLDED_STATEMENTS && (
        <p class="more">
          <button type="button" aria-expanded={unfolded} onClick={() => setUnfolded(!unfolded)}>
            {unfolded ? `The dearest ${FOLDED_STATEMENTS}` : `All ${count(statements.length)} statements`}
          </button>
        </p>
      )}
    </Card>
  );
}

function perBucketNote(load: DatabaseLoad): string {
  if (load.rows_per_bucket === null || load.milliseconds_per_bucket === null) return "no submit in the last minute";
  return `statements, ${rate(load.rows_per_bucket)} rows, ${milliseconds(load.milliseconds_per_bucket)}`;
}
