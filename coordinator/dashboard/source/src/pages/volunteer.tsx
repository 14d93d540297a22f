// A volunteer's own page: places, pace, and what holds it back.
import { Card, DoingBadge, Empty, Failure, Figure, HealthBadge, Loading, ServiceLink } from "../components";
import { useApp, useNow, useRows } from "../context";
import { CopyButton } from "../copyable";
import { count, percent, waitingText } from "../format";
import { PageHead } from "../page_head";
import { href } from "../route";
import type { ClientHour, ClientInService, ClientRow, Span, StandingRow } from "../wire";
import { HourChart } from "./client_record";

const SPAN_TITLES: Record<Span, string> = { day: "Today", week: "This week", month: "This month", all: "All time" };

const HOUR_MS = 3_600_000;

export function VolunteerPage({ client }: { client: string }) {
  const now = useNow();
  const filter = { client_id: client };
  const loaded = useRows<ClientRow>({ table: "clients", filter, limit: 1, refreshSeconds: 2 });
  const row = loaded.rows?.find((candidate) => candidate.client_id === client);

  return (
    <>
      <PageHead title={row?.screen_name ?? client} back={["leaderboard", "Leaderboard"]}>
        {row !== undefined && (
          <>
            <DoingBadge doing={row.doing} now={now} />
            {row.health !== "ok" && <HealthBadge health={row.health} reason={null} />}
            <span class="muted name">id {row.client_id}</span>
            <ShareButton name={row.screen_name} />
          </>
        )}
      </PageHead>
      {loaded.error !== null && !loaded.missing && <Failure text={loaded.error} reload={loaded.reload} />}
      {loaded.rows === null && loaded.error === null && <Loading rows={5} />}
      {(loaded.missing || loaded.rows !== null) && row === undefined && (
        <Empty title="There is no such volunteer.">
          <a href={href(["join"])}>Take part</a>
        </Empty>
      )}
      {row !== undefined && <VolunteerCards row={row} now={now} />}
    </>
  );
}

function VolunteerCards({ row, now }: { row: ClientRow; now: number }) {
  const filter = { client_id: row.client_id };
  const standing = useRows<StandingRow>({ table: "standing", filter, limit: 4, refreshSeconds: 10 });
  const hours = useRows<ClientHour>({ table: "client_hours", filter, limit: 1000, refreshSeconds: 20 });

  return (
    <>
      {standing.error !== null && <Failure text={standing.error} reload={standing.reload} />}
      <dl class="figures-row">
        {standing.rows?.map((one) => (
          <Figure key={one.span} name={SPAN_TITLES[one.span]} value={count(one.settled)} note={placeText(one)} />
        ))}
        <Figure name="Pace" value={hours.rows === null ? "–" : `${count(itemsPerHour(hours.rows, now))}/h`} note="items, lately" />
      </dl>
      <div class="columns">
        <div class="column">
          <Card
            title="Items settled in each hour of two days"
            aside={<a href={href(["clients", row.client_id], { tab: "record" })}>Whole record</a>}
          >
            {hours.rows === null && hours.error === null && <Loading rows={4} />}
            {hours.error !== null && <p class="refusal">{hours.error}</p>}
            {hours.rows !== null && <HourChart rows={hours.rows} />}
          </Card>
        </div>
        <div class="column aside">
          <ObstacleCard row={row} now={now} />
        </div>
      </div>
    </>
  );
}

/** The place among all, and the part in what all have settled. */
function placeText({ place, volunteers, settled, total }: StandingRow): string {
  if (place === null) return "nothing yet";
  return `place ${count(place)} of ${count(volunteers)}, ${percent(settled, total)} of all`;
}

/** Items settled per hour in the running hour and the one before. */
function itemsPerHour(rows: readonly ClientHour[], now: number): number {
  const begin = Math.floor(now / HOUR_MS) * HOUR_MS - HOUR_MS;
  const settled = rows.filter(({ at }) => Date.parse(at) >= begin).reduce((sum, row) => sum + row.settled, 0);
  return (settled * HOUR_MS) / (now - begin);
}

/** What slows the client down, or keeps it from working, in sentences. */
function ObstacleCard({ row, now }: { row: ClientRow; now: number }) {
  const slowed = row.services.filter(({ waiting, health, joined }) => joined && (waiting !== null || health !== "ok"));
  const heldUp = row.doing.what === "backing_off" || row.doing.what === "limited";

  return (
    <Card title="What holds it back">
      {row.state === "deactivated" && (
        <p>
          <b>It was deactivated by an admin</b>
          {row.deactivated ? `: ${row.deactivated}` : "."}
        </p>
      )}
      {heldUp && <p>{row.doing.text}</p>}
      {slowed.length === 0 && !heldUp && row.state !== "deactivated" && (
        <Empty title="Nothing holds it back.">
          {row.connected === 0 ? "It is not connected." : "It gets work as fast as it asks for it."}
        </Empty>
      )}
      <ul class="plain">
        {slowed.map((membership) => (
          <li key={membership.service}>
            <ServiceLink service={membership.service} />: {slowedText(membership, now)}
          </li>
        ))}
      </ul>
    </Card>
  );
}

function slowedText({ health, reason, waiting }: ClientInService, now: number): string {
  const parts: string[] = [];
  if (waiting !== null) parts.push(waitingText(waiting, now));
  if (health === "flagged") parts.push(`one bucket at a time, since ${reason ?? "its results look wrong"}`);
  if (health === "watched") parts.push(`watched: ${reason ?? "its results look odd"}`);
  return parts.join("; ");
}

/** Hand the address on: by the system's own dialog where there is one, else it is copied. */
function ShareButton({ name }: { name: string }) {
  const { toasts } = useApp();
  const address = location.href;
  if (typeof navigator.share !== "function") return <CopyButton text={address} what="The address" label="Copy the address" />;

  const share = async (): Promise<void> => {
    try {
      await navigator.share({ title: name, url: address });
    } catch (failure) {
      if ((failure as Error).name !== "AbortError") toasts.add("The browser does not let this page share its address.");
    }
  };
  return (
    <button type="button" onClick={() => void share()}>
      Share
    </button>
  );
}
