// The stats channel, kept open: subscriptions to topics, pages of tables, and a new session after a lost one.
import { Backoff } from "./backoff";
import { Observable } from "./observable";
import { type ConnectionLost, RequestRefused, Session, whyNotOpen } from "./session";
import type { Filter, Page, Role, ServerCard, Snapshot, StatsWelcome, Table, Topic, WireError } from "./wire";

/** Seconds between two snapshots of a topic, at least. */
const SNAPSHOT_INTERVAL_SECONDS = 1;
/** Milliseconds without a message after which the server is asked whether it is still there. */
const SILENCE_BEFORE_PROBE_MS = 20_000;

export type ConnectionState =
  | { phase: "connecting" }
  | { phase: "live"; role: Role; server: ServerCard }
  | { phase: "waiting"; until: number }
  | { phase: "refused"; error: WireError }
  | { phase: "paused" };

export class StatsConnection {
  readonly state = new Observable<ConnectionState>({ phase: "connecting" });
  /** Why no connection comes about, as far as is known. */
  readonly obstacle = new Observable<string | null>(null);
  /** The time at which the reader has frozen the view; null while it moves. */
  readonly frozenAt = new Observable<Date | null>(null);
  /** The last known server and role; they outlive a lost connection. */
  readonly server = new Observable<ServerCard | null>(null);
  readonly role = new Observable<Role>("viewer");
  /** The topics that this server offers. */
  readonly topics = new Observable<readonly string[]>([]);

  /** When the server last said anything, in milliseconds since 1970; 0 before it did. */
  lastMessageAt = 0;

  /** Milliseconds that the server's clock is ahead of the browser's. */
  clockOffset = 0;

  private session: Session | null = null;
  private readonly backoff = new Backoff();
  private reconnectTimer: ReturnType<typeof setTimeout> | undefined;
  private silenceTimer: ReturnType<typeof setTimeout> | undefined;
  private repeatTimer: ReturnType<typeof setTimeout> | undefined;
  private readonly subscribers = new Map<Topic, number>();
  /** The topics that the session is subscribed to, as the server's last answer said. */
  private confirmedTopics: readonly Topic[] = [];
  private readonly snapshots = new Map<Topic, Observable<Snapshot | null>>();

  constructor(private token: string | null) {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.resume()));
    addEventListener("online", () => this.retry());
  }

  start(): void {
    if (document.hidden) this.pause();
    else this.connect();
  }

  /** Begin a new session with another token, or with none. */
  setToken(token: string | null): void {
    this.token = token;
    this.role.set("viewer");
    this.backoff.reset();
    this.connect();
  }

  /** Connect at once instead of later. */
  retry(): void {
    if (this.state.value.phase === "waiting" || this.state.value.phase === "refused") this.connect();
  }

  setFrozen(frozen: boolean): void {
    if (frozen === (this.frozenAt.value !== null)) return;
    const topics = [...this.subscribers.keys()];
    if (frozen) {
      this.requestTopics("unsubscribe", topics);
      this.frozenAt.set(new Date());
    } else {
      this.frozenAt.set(null);
      this.requestTopics("subscribe", topics);
    }
  }

  /** True while tables are to be read again and again. */
  get refreshing(): boolean {
    return this.state.value.phase === "live" && this.frozenAt.value === null;
  }

  snapshotOf(topic: Topic): Observable<Snapshot | null> {
    let snapshot = this.snapshots.get(topic);
    if (snapshot === undefined) this.snapshots.set(topic, (snapshot = new Observable<Snapshot | null>(null)));
    return snapshot;
  }

  /** Subscribe to a topic until the returned function is called. */
  subscribe(topic: Topic): () => void {
    const subscribers = this.subscribers.get(topic) ?? 0;
    this.subscribers.set(topic, subscribers + 1);
    if (subscribers === 0 && this.needsSnapshots(topic)) this.requestTopics("subscribe", [topic]);

    return () => {
      const left = (this.subscribers.get(topic) ?? 1) - 1;
      if (left > 0) this.subscribers.set(topic, left);
      else {
        this.subscribers.delete(topic);
        this.requestTopics("unsubscribe", [topic]);
      }
    };
  }

  /** Read one page of a table.  Rejects with `RequestRefused` or `ConnectionLost`. */
  async readPage(
    table: Table,
    filter: Filter,
    after: string | null,
    limit: number,
    { count = false }: { count?: boolean } = {},
  ): Promise<Page> {
    const session = this.session;
    if (session === null) throw new Error("There is no connection to the server.");
    const fields = { topic: table, filter, limit, ...(after === null ? {} : { after }), ...(count ? { count } : {}) };
    return (await session.request("get", fields)) as unknown as Page;
  }

  private connect(): void {
    this.closeSession();
    this.state.set({ phase: "connecting" });

    const session: Session = new Session("stats", {
      onPush: (message) => {
        if (message.type === "snapshot") this.storeSnapshot(message as unknown as Snapshot);
      },
      onMessage: () => {
        this.lastMessageAt = Date.now();
        this.restartSilenceTimer(session);
      },
      onEnd: (lost, refusal) => {
        if (this.session !== session) return;
        this.reconnectLater(lost, refusal);
        if (!session.wasOpen) void this.findObstacle();
      },
    });
    this.session = session;
    this.greet(session).catch(() => undefined); // `onEnd` gets the reason
  }

  private async greet(session: Session): Promise<void> {
    const welcome = (await session.hello(this.token)) as unknown as StatsWelcome;
    this.backoff.reset();
    this.obstacle.set(null);
    this.server.set(welcome.server);
    this.role.set(welcome.role);
    this.topics.set(welcome.topics);
    this.state.set({ phase: "live", role: welcome.role, server: welcome.server });

    this.requestTopics("subscribe", this.neededTopics());
  }

  /** Tell whether snapshots of a topic are of use: a frozen view still shows the first one of a topic. */
  private needsSnapshots(topic: Topic): boolean {
    return this.frozenAt.value === null || this.snapshotOf(topic).value === null;
  }

  private neededTopics(): Topic[] {
    return [...this.subscribers.keys()].filter((topic) => this.needsSnapshots(topic));
  }

  private requestTopics(type: "subscribe" | "unsubscribe", wanted: Topic[]): void {
    const topics = wanted.filter((topic) => this.topics.value.includes(topic));
    const session = this.session;
    if (session === null || this.state.value.phase !== "live" || topics.length === 0) return;

    const fields = type === "subscribe" ? { topics, interval: SNAPSHOT_INTERVAL_SECONDS } : { topics };
    session.request(type, fields).then(
      (answer) => {
        if (this.session === session) this.confirmedTopics = answer.topics as Topic[];
      },
      (failure: unknown) => {
        if (this.session === session) this.repeatLater(failure);
      },
    );
  }

  /** After a refusal that passes (too many requests), ask again for what is still needed then. */
  private repeatLater(failure: unknown): void {
    if (!(failure instanceof RequestRefused) || failure.error.retry_after === undefined) return;
    clearTimeout(this.repeatTimer);
    this.repeatTimer = setTimeout(() => this.correctSubscriptions(), failure.error.retry_after * 1000);
  }

  /** Request the difference between the needed and the confirmed topics. */
  private correctSubscriptions(): void {
    const needed = this.neededTopics();
    this.requestTopics(
      "unsubscribe",
      this.confirmedTopics.filter((topic) => !needed.includes(topic)),
    );
    this.requestTopics(
      "subscribe",
      needed.filter((topic) => !this.confirmedTopics.includes(topic)),
    );
  }

  private storeSnapshot(snapshot: Snapshot): void {
    if (!this.needsSnapshots(snapshot.topic)) return;
    this.clockOffset = Date.parse(snapshot.at) - Date.now();
    this.snapshotOf(snapshot.topic).set(snapshot);
    if (this.frozenAt.value !== null) this.requestTopics("unsubscribe", [snapshot.topic]);
  }

  private reconnectLater(lost: ConnectionLost, refusal: WireError | null): void {
    this.closeSession();
    if (lost.final) {
      this.state.set({ phase: "refused", error: refusal ?? { code: "unauthorized", message: lost.message } });
      return;
    }

    const delay = this.backoff.nextDelay() * 1000;
    this.state.set({ phase: "waiting", until: Date.now() + delay });
    this.reconnectTimer = setTimeout(() => this.connect(), delay);
  }

  private async findObstacle(): Promise<void> {
    const reason = await whyNotOpen("stats");
    if (this.state.value.phase !== "live") this.obstacle.set(reason);
  }

  /** After a silence ask for something small; an unanswered request ends the session. */
  private restartSilenceTimer(session: Session): void {
    clearTimeout(this.silenceTimer);
    this.silenceTimer = setTimeout(() => {
      session.request("get", { topic: "nodes", limit: 1 }).catch(() => undefined);
    }, SILENCE_BEFORE_PROBE_MS);
  }

  private pause(): void {
    this.closeSession();
    this.state.set({ phase: "paused" });
  }

  private resume(): void {
    if (this.state.value.phase === "paused") this.connect();
  }

  private closeSession(): void {
    clearTimeout(this.reconnectTimer);
    clearTimeout(this.silenceTimer);
    clearTimeout(this.repeatTimer);
    this.confirmedTopics = [];
    const session = this.session;
    this.session = null;
    session?.close();
  }
}
