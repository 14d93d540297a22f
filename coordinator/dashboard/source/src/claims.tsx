// Claims that were: who had a bucket, when, and what became of it.
import { Badge, ClientLink, Empty, ServiceLink, TimeAgo } from "./components";
import { useRows } from "./context";
import { count, duration } from "./format";
import { BucketLink } from "./links";
import { type Column, TableView } from "./table";
import type { Tone } from "./tones";
import type { ClaimRow, Filter } from "./wire";

/** Claims that are listed, the newest. */
const MAX_CLAIMS = 100;

/** How claims end, in words, and whether that is a failure. */
const ENDS: Record<string, readonly [words: string, tone: Tone]> = {
  settled: ["all settled", "good"],
  partial: ["submitted with items left", "bad"],
  released: ["given back", "warn"],
  cut_off: ["cut off", "bad"],
  dead: ["held too long", "bad"],
  expired: ["held too long in all", "bad"],
  drained: ["node drained", "neutral"],
  crashed: ["node went away", "neutral"],
  undelivered: ["never delivered", "neutral"],
  recollected: ["went on after a break", "neutral"],
  revoked: ["service revoked", "neutral"],
  deactivated: ["client deactivated", "neutral"],
  left: ["client left the service", "warn"],
  unregistered: ["client unregistered", "warn"],
  taken: ["taken by an operator", "neutral"],
};

export function ClaimTable(props: { filter: Filter; caption: string; empty: string; of: "bucket" | "item"; now: number }) {
  const loaded = useRows<ClaimRow>({ table: "claims", filter: props.filter, limit: MAX_CLAIMS, refreshSeconds: 5 });
  return (
    <>
      <TableView
        caption={props.caption}
        columns={props.of === "bucket" ? claimColumns(props.now) : claimColumnsOfItem(props.now)}
        loaded={loaded}
        rowKey={(row) => String(row.claim)}
        empty={<Empty title={props.empty} />}
      />
      {loaded.next !== null && <p class="more muted">These are the newest {MAX_CLAIMS}.</p>}
    </>
  );
}

function claimColumns(now: number): Column<ClaimRow>[] {
  return [
    { title: "Client", cell: (row) => <ClientLink id={row.client_id} /> },
    { title: "Began", cell: (row) => <TimeAgo time={row.begun_at} now={now} /> },
    { title: "Ended", cell: (row) => <ClaimEnd row={row} /> },
    { title: "Took", numeric: true, cell: (row) => duration(secondsOf(row, now)) },
    { title: "Items", numeric: true, cell: (row) => count(row.given) },
    {
      title: "Settled",
      numeric: true,
      cell: (row) => `${count(row.settled)}${row.valid ? "" : ", taken back"}`,
    },
  ];
}

function claimColumnsOfItem(now: number): Column<ClaimRow>[] {
  const [client, ...others] = claimColumns(now);
  return [
    { title: "Service", cell: (row) => <ServiceLink service={row.service} /> },
    ...(client === undefined ? [] : [client]),
    { title: "Bucket", cell: (row) => <BucketLink id={row.bucket_id} /> },
    ...others,
  ];
}

function secondsOf(row: ClaimRow, now: number): number {
  return ((row.ended_at === null ? now : Date.parse(row.ended_at)) - Date.parse(row.begun_at)) / 1000;
}

function ClaimEnd({ row }: { row: ClaimRow }) {
  if (row.ended === null) return <Badge word="under way" tone="good" />;
  const [words, tone] = ENDS[row.ended] ?? [row.ended, "neutral"];
  return <Badge word={words} tone={tone} />;
}
