// The stats channel, kept open: what is subscribed to, pages of tables, and coming back after a cut.
import { Backoff } from "./backoff";
import { Cell } from "./cell";
import { type Cut, Session } from "./socket";
import type { Filter, Page, Role, ServerCard, Snapshot, StatsWelcome, Table, Topic, WireError } from "./wire";

/** Seconds between two snapshots of a topic, at least. */
const INTERVAL = 1;
/** Milliseconds of silence after which the server is asked whether it is still there. */
const SILENCE = 20_000;

export type Link =
  | { phase: "connecting" }
  | { phase: "live"; role: Role; server: ServerCard }
  | { phase: "waiting"; until: number }
  | { phase: "refused"; error: WireError }
  | { phase: "asleep" };

export class Live {
  readonly link = new Cell<Link>({ phase: "connecting" });
  /** When the reader has frozen the view, or null. */
  readonly frozen = new Cell<Date | null>(null);
  /** The last known server and role; they outlive a cut. */
  readonly server = new Cell<ServerCard | null>(null);
  readonly role = new Cell<Role>("viewer");
  /** What this server can be asked for. */
  readonly topics = new Cell<readonly string[]>([]);

  /** Milliseconds that the server's clock is ahead of this one. */
  ahead = 0;

  private session: Session | null = null;
  private readonly backoff = new Backoff();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setTimeout> | undefined;
  private readonly wanted = new Map<Topic, number>();
  private readonly snapshots = new Map<Topic, Cell<Snapshot | null>>();

  constructor(private token: string | null) {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.sleep() : this.wake()));
    addEventListener("online", () => this.retry());
  }

  start(): void {
    if (document.hidden) this.sleep();
    else this.connect();
  }

  /** Another token, or none: the session begins anew with it. */
  use(token: string | null): void {
    this.token = token;
    this.role.set("viewer");
    this.backoff.reset();
    this.connect();
  }

  /** Try at once instead of later. */
  retry(): void {
    if (this.link.value.phase === "waiting" || this.link.value.phase === "refused") this.connect();
  }

  freeze(on: boolean): void {
    if (on === (this.frozen.value !== null)) return;
    const topics = [...this.wanted.keys()];
    if (on) {
      this.tell("unsubscribe", topics);
      this.frozen.set(new Date());
    } else {
      this.frozen.set(null);
      this.tell("subscribe", topics);
    }
  }

  /** True while tables should be read again and again. */
  get flowing(): boolean {
    return this.link.value.phase === "live" && this.frozen.value === null;
  }

  snapshot(topic: Topic): Cell<Snapshot | null> {
    let cell = this.snapshots.get(topic);
    if (cell === undefined) this.snapshots.set(topic, (cell = new Cell<Snapshot | null>(null)));
    return cell;
  }

  /** Subscribe to a topic until the returned function is called. */
  want(topic: Topic): () => void {
    const count = this.wanted.get(topic) ?? 0;
    this.wanted.set(topic, count + 1);
    // A frozen view still fills what it shows for the first time.
    if (count === 0 && (this.frozen.value === null || this.snapshot(topic).value === null)) {
      this.tell("subscribe", [topic]);
    }
    return () => {
      const left = (this.wanted.get(topic) ?? 1) - 1;
      if (left > 0) this.wanted.set(topic, left);
      else {
        this.wanted.delete(topic);
        this.tell("unsubscribe", [topic]);
      }
    };
  }

  /** One page of a table.  Rejects with `Refused` or `Cut`. */
  async page(table: Table, filter: Filter, after: string | null, limit: number): Promise<Page> {
    const session = this.session;
    if (session === null) throw new Error("There is no connection to the server.");
    const fields = { topic: table, filter, limit, ...(after === null ? {} : { after }) };
    return (await session.ask("get", fields)) as unknown as Page;
  }

  private connect(): void {
    this.drop();
    this.link.set({ phase: "connecting" });
    const session: Session = new Session("stats", {
      push: (message) => {
        if (message.type === "snapshot") this.take(message as unknown as Snapshot);
      },
      heard: () => this.listen(session),
      ended: (cut, refusal) => {
        if (this.session === session) this.ended(cut, refusal);
      },
    });
    this.session = session;
    this.greet(session).catch(() => undefined); // `ended` has the reason
  }

  private async greet(session: Session): Promise<void> {
    const welcome = (await session.hello(this.token)) as unknown as StatsWelcome;
    this.backoff.reset();
    this.server.set(welcome.server);
    this.role.set(welcome.role);
    this.topics.set(welcome.topics);
    this.link.set({ phase: "live", role: welcome.role, server: welcome.server });
    const topics = [...this.wanted.keys()];
    this.tell(
      "subscribe",
      topics.filter((topic) => this.frozen.value === null || this.snapshot(topic).value === null),
    );
  }

  private tell(type: "subscribe" | "unsubscribe", wanted: Topic[]): void {
    const topics = wanted.filter((topic) => this.topics.value.includes(topic));
    if (this.session === null || this.link.value.phase !== "live" || topics.length === 0) return;
    const fields = type === "subscribe" ? { topics, interval: INTERVAL } : { topics };
    this.session.ask(type, fields).catch(() => undefined); // a cut subscribes anew
  }

  private take(snapshot: Snapshot): void {
    const cell = this.snapshot(snapshot.topic);
    if (this.frozen.value !== null && cell.value !== null) return;
    this.ahead = Date.parse(snapshot.at) - Date.now();
    cell.set(snapshot);
  }

  private ended(cut: Cut, refusal: WireError | null): void {
    this.drop();
    if (cut.final) {
      this.link.set({ phase: "refused", error: refusal ?? { code: "unauthorized", message: cut.message } });
      return;
    }
    const wait = this.backoff.next() * 1000;
    this.link.set({ phase: "waiting", until: Date.now() + wait });
    this.timer = setTimeout(() => this.connect(), wait);
  }

  /** After a silence ask for something small; an unanswered request ends the session. */
  private listen(session: Session): void {
    clearTimeout(this.watch);
    this.watch = setTimeout(() => {
      session.ask("get", { topic: "nodes", limit: 1 }).catch(() => undefined);
    }, SILENCE);
  }

  private sleep(): void {
    this.drop();
    this.link.set({ phase: "asleep" });
  }

  private wake(): void {
    if (this.link.value.phase === "asleep") this.connect();
  }

  private drop(): void {
    clearTimeout(this.timer);
    clearTimeout(this.watch);
    const session = this.session;
    this.session = null;
    session?.end();
  }
}
