// The public page: how far the work is, who has just contributed, and how to show that elsewhere.
import { Badge, Card, Empty, Failure, Figure, Loading, Meter, Name, TimeAgo } from "../components";
import { useNow, useRows } from "../context";
import { CopyableText } from "../copyable";
import { progressEta } from "../eta";
import { count, plural, rate } from "../format";
import { PageHead } from "../page_head";
import { href } from "../route";
import type { Progress, ProgressOfService } from "../wire";
import { PlaceBadge } from "./leaderboard";

export function ProjectPage() {
  const loaded = useRows<Progress>({ table: "progress", limit: 1, refreshSeconds: 5 });
  const progress = loaded.rows?.[0];

  return (
    <>
      <PageHead
        title={progress?.project || "The work so far"}
        lead={progress === undefined ? "\u00a0" : summary(progress)}
      />
      {loaded.error !== null && <Failure text={loaded.error} reload={loaded.reload} />}
      {progress === undefined && loaded.error === null && <Loading rows={5} />}
      {progress !== undefined && <ProjectProgress progress={progress} />}
    </>
  );
}

/** How far the work is, in one sentence. */
function summary({ settled, total, volunteers }: Progress): string {
  if (total === 0) return "There is nothing to do yet.";
  if (settled >= total) return `All ${count(total)} items are checked. Thank you!`;
  const now = volunteers === 0 ? "nobody is at work now" : `${plural(volunteers, "volunteer")} at work`;
  return `${plural(total - settled, "item")} to go; ${now}.`;
}

function ProjectProgress({ progress }: { progress: Progress }) {
  const now = useNow();
  const eta = progressEta(progress);

  return (
    <>
      <section class="card goal" aria-label="Progress">
        <p>
          <b class="goal-percent">{percentText(progress)}</b>{" "}
          <span class="muted">
            {count(progress.settled)} of {plural(progress.total, "item")}
          </span>
        </p>
        <Meter share={progress.settled / Math.max(1, progress.total)} />
      </section>
      <dl class="figures-row">
        <Figure name="Pace" value={`${rate(progress.items_per_second)}/s`} note="items, in the last seconds" />
        <Figure name="Done in" value={eta.text} note={eta.note} />
        <Figure name="Volunteers at work" value={count(progress.volunteers)} note={<a href={href(["join"])}>Take part</a>} />
      </dl>
      <div class="columns">
        <div class="column">
          <ServiceList services={progress.services} />
          <EmbedCard />
        </div>
        <div class="column aside">
          <ContributorCard progress={progress} now={now} />
          <DayLeaderCard progress={progress} />
        </div>
      </div>
    </>
  );
}

function percentText({ percent, settled, total }: Pick<Progress, "percent" | "settled" | "total">): string {
  return settled >= total && total > 0 ? "100 %" : `${percent.toFixed(1)} %`;
}

function ServiceList({ services }: { services: readonly ProgressOfService[] }) {
  return (
    <Card title="What is checked">
      {services.length === 0 && <Empty title="There are no services." />}
      <ul class="progress-list">
        {services.map((row) => (
          <li key={row.service}>
            <div class="progress-head">
              <span class="volunteer">
                <Name text={row.title || row.service} />
                {row.state === "paused" && <Badge word="paused" />}
              </span>
              <span class="muted">
                {count(row.settled)} of {count(row.total)}
              </span>
              <b>{row.total === 0 ? "–" : percentText(row)}</b>
            </div>
            <Meter share={row.settled / Math.max(1, row.total)} />
          </li>
        ))}
      </ul>
    </Card>
  );
}

function ContributorCard({ progress, now }: { progress: Progress; now: number }) {
  return (
    <Card title="Just contributed">
      {progress.contributors.length === 0 ? (
        <Empty title="Nobody yet.">The first one could be you.</Empty>
      ) : (
        <ul class="contributors">
          {progress.contributors.map(({ screen_name, items, at }, index) => (
            <li key={`${screen_name} ${index}`}>
              <Name text={screen_name} />
              <span class="muted">
                {plural(items, "item")}, <TimeAgo time={at} now={now} />
              </span>
            </li>
          ))}
        </ul>
      )}
    </Card>
  );
}

function DayLeaderCard({ progress }: { progress: Progress }) {
  const most = progress.leaders[0]?.settled || 1;
  return (
    <Card title="Most today" aside={<a href={href(["leaderboard"])}>Leaderboard</a>}>
      {progress.leaders.length === 0 ? (
        <Empty title="Nobody yet today.">The first place is free.</Empty>
      ) : (
        <ol class="leaders">
          {progress.leaders.map(({ place, screen_name, settled }, index) => (
            <li key={`${screen_name} ${index}`}>
              <PlaceBadge place={place} />
              <Name text={screen_name} />
              <b>{count(settled)}</b>
              <Meter share={settled / most} />
            </li>
          ))}
        </ol>
      )}
    </Card>
  );
}

/** What to write into other pages; the addresses answer where the server asks viewers for no token. */
function EmbedCard() {
  const address = (path: string): string => new URL(path, document.baseURI).href;
  const page = address(".") + href(["project"]);
  const badge = `<a href="${page}"><img src="${address("v1/progress.svg")}" alt="Progress"></a>`;
  return (
    <Card title="Show it elsewhere">
      <details>
        <summary>A badge, and the figures as JSON</summary>
        <div class="stack">
          <CopyableText text={badge} what="The badge" />
          <CopyableText text={address("v1/progress.json")} what="The address" />
          <p class="muted">They answer everybody where the server asks viewers for no token.</p>
        </div>
      </details>
    </Card>
  );
}
