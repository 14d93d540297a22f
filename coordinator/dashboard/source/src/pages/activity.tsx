import { Empty, NeedsRole, Name, TimeAgo } from "../components";
import { useAdminRows } from "../admin_rows";
import { useApp, useNow } from "../context";
import { useHasRole } from "../dialog";
import { useObservable } from "../observable";
import { PageHead } from "../page_head";
import { type Column, Pager, SearchField, TableView, usePagePosition } from "../table";

const LINES_PER_PAGE = 100;

interface ActivityLine {
  at: string;
  who: string;
  action: string;
  target: string | null;
  outcome: string;
}

/** Who did what through the admin channel, the newest first. */
export function ActivityPage() {
  const operator = useHasRole("operator");
  return (
    <>
      <PageHead title="Activity" lead="What operators and admins did, and what faults the nodes noted. Looking is noted too." />
      {operator ? (
        <ActivityLines />
      ) : (
        <NeedsRole role="operator" />
      )}
    </>
  );
}

function ActivityLines() {
  const { query } = useObservable(useApp().router.route);
  const position = usePagePosition();
  const now = useNow();
  const loaded = useAdminRows<ActivityLine>("activity.list", {
    limit: LINES_PER_PAGE,
    ...(query.action ? { action: query.action } : {}),
    ...(query.client ? { client_id: query.client } : {}),
    ...(position.after === null ? {} : { after: position.after }),
  });

  const columns: Column<ActivityLine>[] = [
    { title: "When", cell: ({ at }) => <TimeAgo time={at} now={now} /> },
    { title: "Who", cell: ({ who }) => <Name text={who} /> },
    { title: "What", cell: ({ action }) => <code>{action}</code> },
    { title: "To what", cell: ({ target }) => (target === null ? "" : <Name text={target} />) },
    { title: "Outcome", cell: ({ outcome }) => outcome },
  ];
  return (
    <>
      <div class="filters" role="search">
        <SearchField name="action" label="Action, such as client.deactivate" />
        <button type="button" class="beside-fields" onClick={loaded.reload}>
          Look again
        </button>
      </div>
      <section class="card" aria-label="Activity">
        <TableView
          caption="What was done"
          columns={columns}
          loaded={loaded}
          rowKey={(row) => `${row.at} ${row.who} ${row.action} ${row.target ?? ""}`}
          empty={<Empty title="Nothing of that was done." />}
        />
        <Pager position={position} loaded={loaded} rowsPerPage={LINES_PER_PAGE} />
      </section>
    </>
  );
}
