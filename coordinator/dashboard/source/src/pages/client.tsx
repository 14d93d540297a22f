import {
  DoingBadge,
  Empty,
  Figure,
  HealthBadge,
  OneThing,
  ServiceLink,
  StateBadge,
  Tabs,
  TimeAgo,
} from "../components";
import { knownRows, useApp, useNow, useRows } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { count, plural, waitingText } from "../format";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { href } from "../route";
import { type Column, TableView } from "../table";
import type { ClientInService, ClientRow } from "../wire";
import { BucketTable } from "./buckets";
import { ClientRecord } from "./client_record";
import { ClientSessions } from "./client_sessions";
import { EventPages } from "./events";
import { ClientResults } from "./results";

const TABS = [
  ["services", "Services"],
  ["record", "Record"],
  ["buckets", "Buckets"],
  ["results", "Results"],
  ["events", "Events"],
] as const;
const OPERATOR_TABS = [...TABS, ["sessions", "Sessions"]] as const;

/** One client: its figures, and its services, buckets, results or events. */
export function ClientPage({ client }: { client: string }) {
  const now = useNow();
  const loaded = useRows<ClientRow>({ table: "clients", filter: { client_id: client }, limit: 1, refreshSeconds: 1 });
  const row = loaded.rows?.find((candidate) => candidate.client_id === client);

  return (
    <>
      <PageHead back={["clients", "Clients"]} title={row?.screen_name ?? client}>
        {row !== undefined && (
          <>
            <DoingBadge doing={row.doing} now={now} />
            <StateBadge word={row.state} reason={row.deactivated} />
            <HealthBadge health={row.health} reason={row.reason} />
            <span class="muted name">id {row.client_id}</span>
            <ClientActivityButton row={row} onDone={loaded.reload} />
          </>
        )}
      </PageHead>
      <OneThing loaded={loaded} thing={row} missing="There is no such client.">
        {(row) => <ClientDetails row={row} now={now} reload={loaded.reload} />}
      </OneThing>
    </>
  );
}

function ClientDetails({ row, now, reload }: { row: ClientRow; now: number; reload(): void }) {
  const { query } = useObservable(useApp().router.route);
  const filter = { client_id: row.client_id };
  const operator = useHasRole("operator");
  const cards = query.tab === "record";

  return (
    <>
      <dl class="figures-row">
        <Figure name="Settled" value={count(row.settled)} note="items, in all services" />
        <Figure name="Holds" value={count(row.held)} note={`buckets, ${count(row.dead)} went dead so far`} />
        <Figure name="Given back" value={count(row.given_back)} note="buckets" />
        <Figure
          name="Sessions"
          value={count(row.connected)}
          note={
            <>
              last access <TimeAgo time={row.last_access} now={now} />
            </>
          }
        />
      </dl>
      <Tabs name="tab" label="Of this client" options={operator ? OPERATOR_TABS : TABS} />
      <section class={cards ? "cards" : "card"} aria-label="Details">
        {query.tab === "buckets" ? (
          <BucketTable filter={filter} />
        ) : query.tab === "results" ? (
          <ClientResults client={row.client_id} services={row.services.map(({ service }) => service)} />
        ) : query.tab === "events" ? (
          <EventPages filter={filter} />
        ) : query.tab === "record" ? (
          <ClientRecord client={row.client_id} />
        ) : query.tab === "sessions" && operator ? (
          <ClientSessions client={row.client_id} />
        ) : (
          <ClientServices row={row} now={now} reload={reload} />
        )}
      </section>
    </>
  );
}

function ClientActivityButton({ row, onDone }: { row: ClientRow; onDone(): void }) {
  const { client_id } = row;
  if (row.state === "unregistered") return null;

  if (row.state === "deactivated") {
    return (
      <OperationButton
        onDone={onDone}
        action={{
          label: "Activate client",
          operation: { type: "client.activate", fields: { client_id } },
          effect: `${client_id} may connect and work again.`,
          doneText: () => `${client_id} is active again.`,
          requiredRole: "operator",
          shownState: row.state,
        }}
      />
    );
  }

  return (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Deactivate client",
        operation: { type: "client.deactivate", fields: { client_id } },
        effect: `${client_id} loses what it holds and cannot connect until it is activated again. Its results stay.`,
        doneText: (answer) =>
          `${client_id} is deactivated; ${plural(Number(answer.released ?? 0), "bucket")} released.`,
        requiredRole: "operator",
        shownState: row.state,
        danger: true,
        asksReason: true,
      }}
    />
  );
}

function ClientServices({ row, now, reload }: { row: ClientRow; now: number; reload(): void }) {
  const columns = membershipColumns(row.client_id, now);
  if (useHasRole("operator")) {
    columns.push({
      title: "Operation",
      cell: (membership) => <MembershipButton client={row} membership={membership} onDone={reload} />,
    });
  }

  return (
    <TableView
      caption="What it did in each service; assigned, held, given back and dead count buckets"
      columns={columns}
      loaded={knownRows(row.services, reload)}
      rowKey={(membership) => membership.service}
      empty={<Empty title="It has joined no service." />}
    />
  );
}

function membershipColumns(client: string, now: number): Column<ClientInService>[] {
  return [
    { title: "Service", cell: ({ service }) => <ServiceLink service={service} /> },
    {
      title: "State",
      cell: ({ joined, active, inactive_reason, waiting }) => (
        <span class="health">
          <StateBadge word={!joined ? "left" : active ? "active" : "inactive"} reason={inactive_reason} />
          {waiting !== null && <span class="reason">{waitingText(waiting, now)}</span>}
        </span>
      ),
    },
    { title: "Health", cell: ({ health, reason }) => <HealthBadge health={health} reason={reason} /> },
    {
      title: "Settled",
      numeric: true,
      cell: ({ service, settled }) => (
        <a href={href(["clients", client], { tab: "results", service })}>{count(settled)}</a>
      ),
    },
    { title: "Held", numeric: true, cell: ({ held }) => count(held) },
    { title: "Assigned", numeric: true, cell: ({ assigned }) => count(assigned) },
    { title: "Submits", numeric: true, cell: ({ processed }) => count(processed) },
    { title: "Given back", numeric: true, cell: ({ given_back }) => count(given_back) },
    { title: "Dead", numeric: true, cell: ({ dead }) => count(dead) },
    { title: "Cut off", numeric: true, cell: ({ disconnects }) => count(disconnects) },
    { title: "Bad submits", numeric: true, cell: ({ bad_submits }) => count(bad_submits) },
    { title: "Last access", numeric: true, cell: ({ last_access }) => <TimeAgo time={last_access} now={now} /> },
  ];
}

interface MembershipButtonProps {
  client: ClientRow;
  membership: ClientInService;
  onDone(): void;
}

function MembershipButton({ client, membership: { service, joined, active }, onDone }: MembershipButtonProps) {
  const fields = { client_id: client.client_id, service };
  const deactivated = client.state === "deactivated"; // in every service
  if (!joined || (active && deactivated)) return null;

  return active ? (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Deactivate here",
        operation: { type: "client.deactivate", fields },
        effect: `${client.client_id} loses what it holds of ${service} and gets no more of it. Its other services go on.`,
        doneText: (answer) =>
          `${client.client_id} is deactivated in ${service}; ${plural(Number(answer.released ?? 0), "bucket")} released.`,
        requiredRole: "operator",
        shownState: `${active}`,
        danger: true,
        asksReason: true,
      }}
    />
  ) : (
    <OperationButton
      onDone={onDone}
      action={{
        label: "Activate here",
        operation: { type: "client.activate", fields },
        effect: `${client.client_id} may work in ${service} again.`,
        doneText: () => `${client.client_id} is active in ${service} again.`,
        requiredRole: "operator",
        shownState: `${active}`,
      }}
    />
  );
}
