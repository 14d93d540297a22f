// The connections of a client, which operators may see: the admin channel tells them, since they name addresses.
import { useEffect, useState } from "preact/hooks";
import { Empty, Name, TimeAgo } from "../components";
import { knownRows, useApp, useNow } from "../context";
import { inAdminSession } from "../operation";
import { type Column, TableView } from "../table";

interface ClientSession {
  session_id: string;
  node: string;
  address: string;
  agent: string | null;
  since: string;
}

/** The sessions as they are now; each look is noted in the activity log, so that it is not repeated by itself. */
export function ClientSessions({ client }: { client: string }) {
  const { preferences } = useApp();
  const now = useNow();
  const [sessions, setSessions] = useState<ClientSession[] | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const [looks, setLooks] = useState(0);

  useEffect(() => {
    let cancelled = false;
    inAdminSession(preferences.token.value ?? "", (session) => session.request("client.show", { client_id: client }))
      .then((answer) => {
        if (cancelled) return;
        setSessions(answer.sessions as ClientSession[]);
        setFault(null);
      })
      .catch((failure: unknown) => {
        if (!cancelled) setFault(failure instanceof Error ? failure.message : String(failure));
      });
    return () => {
      cancelled = true;
    };
  }, [client, looks]);

  const columns: Column<ClientSession>[] = [
    { title: "Program", cell: ({ agent }) => (agent === null ? "not told" : <Name text={agent} />) },
    { title: "Address", cell: ({ address }) => <Name text={address} /> },
    { title: "Node", cell: ({ node }) => <Name text={node} /> },
    { title: "Since", numeric: true, cell: ({ since }) => <TimeAgo time={since} now={now} /> },
  ];
  return (
    <>
      <TableView
        caption="Its connections"
        columns={columns}
        loaded={{ ...knownRows(sessions, () => setLooks(looks + 1)), error: fault }}
        rowKey={({ session_id }) => session_id}
        empty={<Empty title="It is not connected." />}
      />
      <p class="more">
        <button type="button" onClick={() => setLooks(looks + 1)}>
          Look again
        </button>
      </p>
    </>
  );
}
