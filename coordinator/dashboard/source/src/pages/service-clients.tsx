import { Badge, ClientLink, Empty, HealthBadge, TimeAgo } from "../components";
import { useNow, useRows } from "../context";
import { count, waitingText } from "../format";
import { href } from "../route";
import { type Column, Pager, TableView, usePagePosition } from "../table";
import type { ClientInService, ClientRow } from "../wire";

const CLIENTS_PER_PAGE = 50;

/** A client with its work in the service that is shown. */
interface Member {
  client: ClientRow;
  membership: ClientInService;
}

/** The clients that have joined a service, those that settled most in all services first. */
export function ServiceClients({ service }: { service: string }) {
  const position = usePagePosition();
  const now = useNow();
  const loaded = useRows<ClientRow>({
    table: "clients",
    filter: { service, sort: "settled" },
    after: position.after,
    limit: CLIENTS_PER_PAGE,
    refreshSeconds: 2,
  });
  const members = (loaded.rows ?? []).flatMap((client) => {
    const membership = client.services.find((candidate) => candidate.service === service);
    return membership === undefined ? [] : [{ client, membership }];
  });

  return (
    <section class="card" aria-label="Clients">
      <TableView
        caption={`Clients of ${service}; held, given back and dead count buckets of it`}
        columns={memberColumns(service, now)}
        loaded={{ ...loaded, rows: loaded.rows === null ? null : members }}
        rowKey={({ client }) => client.client_id}
        empty={<Empty title="No client has joined it yet." />}
      />
      <Pager position={position} loaded={loaded} rowsPerPage={CLIENTS_PER_PAGE} />
    </section>
  );
}

function memberColumns(service: string, now: number): Column<Member>[] {
  return [
    { title: "Client", cell: ({ client }) => <ClientLink id={client.client_id} name={client.screen_name} /> },
    {
      title: "State",
      cell: ({ membership: { joined, active, waiting } }) => (
        <span class="health">
          <Badge word={!joined ? "left" : active ? "active" : "inactive"} />
          {waiting !== null && <span class="reason">{waitingText(waiting, now)}</span>}
        </span>
      ),
    },
    {
      title: "Health",
      cell: ({ membership }) => <HealthBadge health={membership.health} reason={membership.reason} />,
    },
    {
      title: "Settled",
      numeric: true,
      cell: ({ client: { client_id }, membership }) => (
        <a href={href(["services", service], { tab: "results", client: client_id })}>{count(membership.settled)}</a>
      ),
    },
    { title: "Held", numeric: true, cell: ({ membership }) => count(membership.held) },
    { title: "Given back", numeric: true, wideOnly: true, cell: ({ membership }) => count(membership.given_back) },
    { title: "Dead", numeric: true, wideOnly: true, cell: ({ membership }) => count(membership.dead) },
    {
      title: "Last access",
      numeric: true,
      cell: ({ membership }) => <TimeAgo time={membership.last_access} now={now} />,
    },
  ];
}
