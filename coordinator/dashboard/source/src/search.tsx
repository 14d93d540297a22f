// The search box of every page: finds items by key or number, clients by id or name, buckets by id.
import { useEffect, useRef, useState } from "preact/hooks";
import { Name } from "./components";
import type { StatsConnection } from "./connection";
import { useApp } from "./context";
import { itemNumber } from "./item_number";
import { useObservable } from "./observable";
import { href } from "./route";
import { RequestRefused } from "./session";
import type { BucketRow, ClientRow, Filter, ItemRow, Table } from "./wire";

/** Milliseconds without typing after which a search begins. */
const TYPING_PAUSE_MS = 250;
/** Rows of each kind that are shown. */
const ROWS_OF_KIND = 6;

const BUCKET_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
/** What a client's id or screen name may have in it. */
const CLIENT_PART = /^[\w.-]{1,64}$/;

interface FoundThing {
  kind: "item" | "client" | "bucket";
  name: string;
  note: string;
  path: string[];
}

type Answer = { found: FoundThing[]; failure: string | null };

export function GlobalSearch() {
  const { connection, router } = useApp();
  const live = useObservable(connection.state).phase === "live";
  const { path, query } = useObservable(router.route);
  const [text, setText] = useState("");
  const [answer, setAnswer] = useState<Answer | null>(null);
  const field = useRef<HTMLInputElement>(null);
  const panel = useRef<HTMLUListElement>(null);
  const searched = text.trim();

  // another page is what was looked for, or something else is
  useEffect(() => {
    setText("");
    setAnswer(null);
  }, [path.join("/"), JSON.stringify(query)]);

  useEffect(() => {
    setAnswer(null);
    if (searched === "" || !live) return;
    let cancelled = false;
    const timer = setTimeout(() => {
      void find(connection, searched).then((answer) => !cancelled && setAnswer(answer));
    }, TYPING_PAUSE_MS);
    return () => {
      cancelled = true;
      clearTimeout(timer);
    };
  }, [connection, searched, live]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const links = [...(panel.current?.querySelectorAll("a") ?? [])];
    const place = links.indexOf(document.activeElement as HTMLAnchorElement);
    if (event.key === "Escape") {
      setText("");
      field.current?.focus();
    } else if (event.key === "ArrowDown") links[Math.min(place + 1, links.length - 1)]?.focus();
    else if (event.key === "ArrowUp") (place > 0 ? links[place - 1] : field.current)?.focus();
    else return;
    event.preventDefault();
  };

  const openFirst = (event: Event): void => {
    event.preventDefault();
    const first = answer?.found[0];
    if (first !== undefined) router.navigate(first.path);
  };

  return (
    <form class="global-search" role="search" aria-label="Everything" onSubmit={openFirst} onKeyDown={onKeyDown}>
      <input
        ref={field}
        type="search"
        data-global-search
        aria-label="Find an item, a client or a bucket"
        placeholder="Item, client, bucket"
        maxLength={256}
        autocomplete="off"
        spellcheck={false}
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <span class="visually-hidden" role="status">
        {answer !== null && statusText(answer)}
      </span>
      {answer !== null && (
        <ul ref={panel} class="found">
          {answer.found.map(({ kind, name, note, path }) => (
            <li key={path.join("/")}>
              <a href={href(path)}>
                <span class="muted">{kind}</span>
                <Name text={name} />
                <span class="muted note">{note}</span>
              </a>
            </li>
          ))}
          {answer.found.length === 0 && <li class="muted">{statusText(answer)}</li>}
        </ul>
      )}
    </form>
  );
}

function statusText({ found, failure }: Answer): string {
  if (failure !== null) return failure;
  return found.length === 0 ? "No item, client or bucket is like that." : `${found.length} found`;
}

/** Ask the server for all that a text may mean. */
async function find(connection: StatsConnection, text: string): Promise<Answer> {
  const read = async <T,>(table: Table, filter: Filter, show: (row: T) => FoundThing): Promise<FoundThing[]> =>
    ((await connection.readPage(table, filter, null, ROWS_OF_KIND)).rows as T[]).map(show);

  const questions: Promise<FoundThing[]>[] = [];
  if (BUCKET_ID.test(text)) questions.push(read("buckets", { bucket_id: text.toLowerCase() }, foundBucket));
  questions.push(read("items", { key: text }, foundItem));
  const number = itemNumber(text);
  if (number !== null) questions.push(read("items", { item: number }, foundItem));
  if (CLIENT_PART.test(text)) questions.push(read("clients", { search: text, sort: "client_id" }, foundClient));
  questions.push(read("items", { prefix: text }, foundItem));

  const answers = await Promise.allSettled(questions);
  const byPath = new Map(
    answers.flatMap((one) => (one.status === "fulfilled" ? one.value : [])).map((one) => [one.path.join("/"), one]),
  );
  const failed = answers.find((one) => one.status === "rejected" && !isNotFound(one.reason));
  const failure = failed?.status === "rejected" ? String((failed.reason as Error).message) : null;
  return { found: [...byPath.values()], failure };
}

/** The server does not know the name, or it is none that could be one. */
function isNotFound(failure: unknown): boolean {
  return failure instanceof RequestRefused && ["not_found", "bad_message", "unknown_bucket"].includes(failure.code);
}

function foundItem({ item, key, services }: ItemRow): FoundThing {
  const note = services.map(({ service, state }) => `${state} in ${service}`).join(", ");
  return { kind: "item", name: key, note: note || "in no service", path: ["items", String(item)] };
}

function foundClient({ client_id, screen_name, state }: ClientRow): FoundThing {
  const note = screen_name === client_id ? state : `${screen_name}, ${state}`;
  return { kind: "client", name: client_id, note, path: ["clients", client_id] };
}

function foundBucket({ bucket_id, service, state }: BucketRow): FoundThing {
  return { kind: "bucket", name: bucket_id, note: `${state}, ${service}`, path: ["buckets", bucket_id] };
}
