// The messages of the stats channel, as the server's wire/stats.py defines them; a test compares the two.

export type Topic = "overview" | "services" | "clients" | "buckets" | "nodes" | "database" | "events";
export type Table = "clients" | "services" | "buckets" | "results" | "events" | "nodes" | "history" | "leaderboard";
export type Health = "ok" | "watched" | "flagged";
export type Step = "minute" | "hour";
export type Role = "viewer" | "operator" | "admin";

export interface ServerCard {
  name: string;
  version: string;
  node: string;
}

export interface StatsWelcome {
  role: Role;
  server: ServerCard;
  protocol: number;
  topics: string[];
}

export interface Filter {
  service?: string;
  client_id?: string;
  key?: string;
  state?: string;
  health?: Health;
  kind?: string;
  search?: string;
  sort?: "client_id" | "settled" | "held" | "dead" | "given_back" | "last_access";
  step?: Step;
  since?: string;
  until?: string;
  span?: "day" | "all";
}

export interface Page {
  topic: string;
  rows: unknown[];
  next: string | null;
}

export interface Snapshot {
  topic: Topic;
  seq: number;
  at: string;
  data: unknown;
}

export interface Items {
  waiting: number;
  ready: number;
  claimed: number;
  dead: number;
  settled: number;
  quarantined: number;
  total: number;
}

export interface Buckets {
  ready: number;
  claimed: number;
  dead: number;
}

/** Seconds from now until all is done, without the time in which no work goes on. */
export interface Eta {
  low: number;
  high: number;
}

export interface Oldest {
  priority: number;
  since: string;
  overtaken_until: string;
}

/** `pending`: buckets asked for and not there, by `clients` clients; `active`: clients that worked lately. */
export interface DemandCounts {
  pending: number;
  clients: number;
  active: number;
}

export interface ServiceRow {
  service: string;
  title: string;
  plugin: string;
  state: string;
  items: Items;
  buckets: Buckets;
  items_per_second: number;
  eta: Eta | null;
  oldest: Oldest[];
  demand: DemandCounts;
}

export interface ClientCounts {
  registered: number;
  connected: number;
  active: number;
  watched: number;
  flagged: number;
  deactivated: number;
}

/** `recent`: the items settled in each second up to the snapshot, the newest last, at most 300. */
export interface Overview {
  items: Items;
  buckets: Buckets;
  items_per_second: number;
  buckets_per_second: number;
  recent: number[];
  eta: Eta | null;
  demand: DemandCounts;
  clients: ClientCounts;
  nodes: number;
  faults: number;
}

export interface ClientInService {
  service: string;
  joined: boolean;
  active: boolean;
  held: number;
  assigned: number;
  processed: number;
  settled: number;
  given_back: number;
  dead: number;
  disconnects: number;
  bad_submits: number;
  health: Health;
  reason: string | null;
  last_access: string;
}

export interface ClientRow {
  client_id: string;
  screen_name: string;
  state: string;
  connected: number;
  health: Health;
  reason: string | null;
  held: number;
  settled: number;
  given_back: number;
  dead: number;
  last_access: string | null;
  services: ClientInService[];
}

/** `age`: seconds since the bucket was claimed, or an item in it was last settled, or it was marked dead. */
export interface BucketRow {
  bucket_id: string;
  service: string;
  state: string;
  client_id: string | null;
  claim: number;
  attempts: number;
  remaining: number;
  age: number | null;
}

/** `cpu` in cores, `memory` in bytes, `lag` in seconds. */
export interface NodeRow {
  node: string;
  boot: number;
  state: string;
  version: string;
  started_at: string;
  lease_until: string;
  sessions: number;
  items_per_second: number;
  cpu: number;
  memory: number;
  lag: number;
}

export interface StatementRow {
  statement: string;
  calls: number;
  rows: number;
  milliseconds: number;
}

/** The load of one node on the database; `busy`: seconds that statements take in each second. */
export interface DatabaseLoad {
  node: string;
  statements_per_second: number;
  rows_per_second: number;
  busy: number;
  statements_per_bucket: number | null;
  rows_per_bucket: number | null;
  milliseconds_per_bucket: number | null;
  pool_size: number;
  pool_waits: number;
  pool_waited: number;
  statements: StatementRow[];
}

export interface EventRow {
  event_id: number;
  at: string;
  kind: string;
  client_id: string | null;
  service: string | null;
  bucket_id: string | null;
  text: string;
}

export interface HistoryRow {
  at: string;
  service: string;
  settled: number;
  buckets: number;
  given_back: number;
  dead: number;
  disconnects: number;
  bad_submits: number;
}

export interface LeaderRow {
  place: number;
  client_id: string;
  screen_name: string;
  settled: number;
}

/** The first rows of a long table. */
export interface FirstRows<T> {
  total: number;
  rows: T[];
}

/** A stored result, as `result.list` answers it. */
export interface ListedResult {
  service: string;
  item: number;
  key: string;
  value: unknown;
  client_id: string;
  session_id: string;
  bucket_id: string;
  claim: number;
  at: string;
  valid: boolean;
}

/** The server's answer to a request that it refuses; `retry_after` in seconds. */
export interface WireError {
  code: string;
  message: string;
  retry_after?: number;
}
