import { useCell } from "../cell";
import { useApp, useNow, useRows } from "../context";
import { ActButton, useMay } from "../dialog";
import { Ago, Badge, Empty, Failure, Figure, HealthBadge, Loading, ServiceLink, Tabs } from "../parts";
import { href } from "../route";
import { type Column, Table } from "../table";
import type { ClientInService, ClientRow } from "../wire";
import { count, plural } from "../words";
import { BucketTable } from "./buckets";
import { EventPages } from "./events";
import { ResultTable } from "./results";

const TABS = [
  ["services", "Services"],
  ["buckets", "Buckets"],
  ["results", "Results"],
  ["events", "Events"],
] as const;

/** One client: what it did in each service, what it holds, what it found. */
export function ClientPage({ client }: { client: string }) {
  const { query } = useCell(useApp().router.route);
  const now = useNow();
  const loaded = useRows<ClientRow>({ table: "clients", filter: { client_id: client }, limit: 1, every: 1 });
  const row = loaded.rows?.find((one) => one.client_id === client);
  return (
    <>
      <div class="page-head">
        <p class="crumbs">
          <a href={href(["clients"])}>Clients</a>
        </p>
        <h1 tabIndex={-1} class="name">
          {row?.screen_name ?? client}
        </h1>
        {row !== undefined && (
          <div class="head-row">
            <Badge word={row.state} />
            <HealthBadge health={row.health} reason={row.reason} />
            <span class="muted name">id {row.client_id}</span>
            <ActivityButton row={row} onDone={loaded.again} />
          </div>
        )}
      </div>
      {loaded.error !== null && !loaded.missing && <Failure text={loaded.error} again={loaded.again} />}
      {loaded.rows === null && loaded.error === null && <Loading rows={5} />}
      {(loaded.missing || loaded.rows !== null) && row === undefined && <Empty title="There is no such client." />}
      {row !== undefined && (
        <>
          <dl class="figures-row">
            <Figure name="Settled" value={count(row.settled)} note="items, in all services" />
            <Figure name="Holds" value={count(row.held)} note={`buckets, ${count(row.dead)} went dead so far`} />
            <Figure name="Given back" value={count(row.given_back)} note="buckets" />
            <Figure name="Sessions" value={count(row.connected)} note={<>last access <Ago time={row.last_access} now={now} /></>} />
          </dl>
          <Tabs name="tab" label="Of this client" options={TABS} />
          <section class="card" aria-label="Details">
            {query.tab === "buckets" ? (
              <BucketTable filter={{ client_id: client }} />
            ) : query.tab === "results" ? (
              <ResultTable client={client} services={row.services.map((one) => one.service)} />
            ) : query.tab === "events" ? (
              <EventPages filter={{ client_id: client }} />
            ) : (
              <Services row={row} now={now} onDone={loaded.again} />
            )}
          </section>
        </>
      )}
    </>
  );
}

function ActivityButton({ row, onDone }: { row: ClientRow; onDone(): void }) {
  const { client_id } = row;
  if (row.state === "unregistered") return null;
  if (row.state === "deactivated") {
    return (
      <ActButton
        onDone={onDone}
        act={{
          name: "Activate client",
          operation: { type: "client.activate", fields: { client_id } },
          effect: `${client_id} may connect and work again.`,
          done: () => `${client_id} is active again.`,
          needs: "operator",
        }}
      />
    );
  }
  return (
    <ActButton
      onDone={onDone}
      act={{
        name: "Deactivate client",
        operation: { type: "client.deactivate", fields: { client_id } },
        effect: `${client_id} loses what it holds and cannot connect until it is activated again. Its results stay.`,
        done: (answer) => `${client_id} is deactivated; ${plural(Number(answer.released ?? 0), "bucket")} released.`,
        needs: "operator",
        danger: true,
        reason: true,
      }}
    />
  );
}

function Services({ row, now, onDone }: { row: ClientRow; now: number; onDone(): void }) {
  const columns: Column<ClientInService>[] = [
    { title: "Service", cell: (one) => <ServiceLink service={one.service} /> },
    { title: "State", cell: (one) => <Badge word={!one.joined ? "left" : one.active ? "active" : "inactive"} /> },
    { title: "Health", cell: (one) => <HealthBadge health={one.health} reason={one.reason} /> },
    {
      title: "Settled",
      figure: true,
      cell: (one) => <a href={href(["clients", row.client_id], { tab: "results", service: one.service })}>{count(one.settled)}</a>,
    },
    { title: "Held", figure: true, cell: (one) => count(one.held) },
    { title: "Assigned", figure: true, cell: (one) => count(one.assigned) },
    { title: "Submits", figure: true, cell: (one) => count(one.processed) },
    { title: "Given back", figure: true, cell: (one) => count(one.given_back) },
    { title: "Dead", figure: true, cell: (one) => count(one.dead) },
    { title: "Cut off", figure: true, cell: (one) => count(one.disconnects) },
    { title: "Bad submits", figure: true, cell: (one) => count(one.bad_submits) },
    { title: "Last access", figure: true, cell: (one) => <Ago time={one.last_access} now={now} /> },
    ...(useMay("operator")
      ? [
          {
            title: "Operation",
            cell: (one: ClientInService) => <MembershipButton client={row.client_id} one={one} onDone={onDone} />,
          },
        ]
      : []),
  ];
  return (
    <Table
      caption="What it did in each service; assigned, held, given back and dead count buckets"
      columns={columns}
      loaded={{ rows: row.services, next: null, stale: false, error: null, missing: false, again: onDone }}
      keyOf={(one) => one.service}
      empty={<Empty title="It has joined no service." />}
    />
  );
}

function MembershipButton({ client, one, onDone }: { client: string; one: ClientInService; onDone(): void }) {
  const fields = { client_id: client, service: one.service };
  if (!one.joined) return null;
  return one.active ? (
    <ActButton
      onDone={onDone}
      act={{
        name: "Deactivate here",
        operation: { type: "client.deactivate", fields },
        effect: `${client} loses what it holds of ${one.service} and gets no more of it. Its other services go on.`,
        done: (answer) => `${client} is deactivated in ${one.service}; ${plural(Number(answer.released ?? 0), "bucket")} released.`,
        needs: "operator",
        danger: true,
        reason: true,
      }}
    />
  ) : (
    <ActButton
      onDone={onDone}
      act={{
        name: "Activate here",
        operation: { type: "client.activate", fields },
        effect: `${client} may work in ${one.service} again.`,
        done: () => `${client} is active in ${one.service} again.`,
        needs: "operator",
      }}
    />
  );
}
