// The follow graph around an account: a small drawing, and the same accounts by name.
import { Card, Name } from "./components";
import { useRows } from "./context";
import { count } from "./format";
import type { ItemNumber } from "./item_number";
import { ItemLink } from "./links";
import type { Neighbour, Neighbourhood } from "./wire";

/** How an account is linked with the one in the middle. */
export type Tie = "mutual" | "follower" | "followed";

const TIES: readonly Tie[] = ["mutual", "follower", "followed"];

const SIZE = 240;
const MIDDLE = SIZE / 2;
/** From the middle to the other accounts, and from both to the ends of the lines between them. */
const RADIUS = 100;
const MIDDLE_GAP = 17;
const DOT_GAP = 9;

export function NeighboursCard({ item, name }: { item: ItemNumber; name: string }) {
  const loaded = useRows<Neighbourhood>({ table: "neighbours", filter: { item }, limit: 1, refreshSeconds: 20 });
  const found = loaded.rows?.[0];
  if (found === undefined) return null; // most items are no accounts whose followers are checked

  const ties = TIES.map((tie) => ({ tie, neighbours: found.neighbours.filter((one) => tieOf(one) === tie) }));
  return (
    <Card title="Who follows whom" class="below">
      <div class="neighbourhood">
        <Drawing name={name} found={found} />
        <dl class="ties">
          {ties.map(({ tie, neighbours }) => (
            <TieList key={tie} tie={tie} neighbours={neighbours} all={countOf(found, tie)} complete={found.complete} />
          ))}
        </dl>
      </div>
      {!found.complete && (
        <p class="more muted">It has more than could be looked at: the counts are the least that there are.</p>
      )}
    </Card>
  );
}

export function tieOf({ follows, followed }: Pick<Neighbour, "follows" | "followed">): Tie {
  return follows && followed ? "mutual" : follows ? "follower" : "followed";
}

function countOf({ mutual, followers, following }: Neighbourhood, tie: Tie): number {
  return { mutual, follower: followers - mutual, followed: following - mutual }[tie];
}

const TITLES: Record<Tie, string> = {
  mutual: "follow each other",
  follower: "follow it",
  followed: "it follows",
};

interface TieListProps {
  tie: Tie;
  neighbours: readonly Neighbour[];
  /** How many accounts are linked so, shown or not. */
  all: number;
  complete: boolean;
}

function TieList({ tie, neighbours, all, complete }: TieListProps) {
  return (
    <div>
      <dt>
        <span class={`swatch tie-${tie}`} aria-hidden="true" /> {TITLES[tie]}:{" "}
        <b>
          {complete ? "" : "at least "}
          {count(all)}
        </b>
      </dt>
      <dd>
        {neighbours.map(({ key, item }) => (
          <span key={key}>{item === null ? <Name text={key} /> : <ItemLink item={item} name={key} />}</span>
        ))}
        {all > neighbours.length && <span class="muted">and {count(all - neighbours.length)} more</span>}
      </dd>
    </div>
  );
}

/** The account in the middle of the others, with an arrow for each that follows. */
function Drawing({ name, found }: { name: string; found: Neighbourhood }) {
  const { followers, following, mutual, neighbours } = found;
  const label = `${name} has ${count(followers)} followers and follows ${count(following)}; ${count(mutual)} are both.`;
  const sorted = TIES.flatMap((tie) => neighbours.filter((one) => tieOf(one) === tie));

  return (
    <svg class="follow-graph" viewBox={`0 0 ${SIZE} ${SIZE}`} role="img" aria-label={label}>
      <defs>
        {TIES.map((tie) => (
          <marker key={tie} id={`arrow-${tie}`} viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto-start-reverse">
            <path class={`tie-${tie}`} d="M0 0 6 3 0 6z" />
          </marker>
        ))}
      </defs>
      {sorted.map((neighbour, place) => (
        <Arrow key={neighbour.key} neighbour={neighbour} angle={(2 * Math.PI * place) / sorted.length} />
      ))}
      <circle class="follow-middle" cx={MIDDLE} cy={MIDDLE} r="11" />
    </svg>
  );
}

function Arrow({ neighbour, angle }: { neighbour: Neighbour; angle: number }) {
  const tie = tieOf(neighbour);
  const [x, y] = [Math.sin(angle), -Math.cos(angle)];
  const at = (distance: number): [number, number] => [MIDDLE + distance * x, MIDDLE + distance * y];
  const [x1, y1] = at(MIDDLE_GAP);
  const [x2, y2] = at(RADIUS - DOT_GAP);
  const [cx, cy] = at(RADIUS);

  return (
    <g>
      <title>{neighbour.key}</title>
      <line
        class={`tie-${tie}`}
        x1={x1}
        y1={y1}
        x2={x2}
        y2={y2}
        {...(neighbour.follows ? { "marker-start": `url(#arrow-${tie})` } : {})}
        {...(neighbour.followed ? { "marker-end": `url(#arrow-${tie})` } : {})}
      />
      <circle class={`tie-${tie}`} cx={cx} cy={cy} r="5" />
    </g>
  );
}
