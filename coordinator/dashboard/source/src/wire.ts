// The messages of the stats channel, as the server's wire/stats.py defines them; a test compares the two.
import type { ItemNumber } from "./item_number";

export type Topic = "overview" | "services" | "clients" | "buckets" | "nodes" | "database" | "events";
export type Table = "clients" | "services" | "schemas" | "items" | "buckets" | "claims" | "results" | "events" | "nodes" | "history" | "kinds" | "shares" | "ages" | "neighbours" | "leaderboard" | "standing" | "progress" | "client_hours" | "outcomes";
export type Severity = "info" | "warning" | "error";
export type Health = "ok" | "watched" | "flagged";
export type Step = "second" | "minute" | "hour";
export type Span = "day" | "week" | "month" | "all";
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

export type ClientSort =
  "client_id" | "state" | "health" | "settled" | "held" | "dead" | "given_back" | "connected" | "last_access";

export interface Filter {
  service?: string;
  client_id?: string;
  key?: string;
  item?: ItemNumber;
  bucket_id?: string;
  prefix?: string;
  value?: Record<string, unknown>;
  state?: string;
  health?: Health;
  kind?: string | string[];
  severity?: "warning" | "error";
  search?: string;
  sort?: ClientSort | "newest";
  order?: "asc" | "desc";
  connected?: boolean;
  step?: Step;
  since?: string;
  until?: string;
  span?: Span;
}

export interface Page {
  topic: string;
  rows: unknown[];
  next: string | null;
  total?: number;
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

/**
 * `pending`: buckets asked for and not there, by `clients` clients; `active`: clients that worked lately; `reasons`: the
 * pending buckets by why they do not come, without those that are just being served.
 */
export interface DemandCounts {
  pending: number;
  clients: number;
  active: number;
  reasons: Record<string, number>;
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

/** `recent`: the items settled in each second up to the snapshot, the newest last, at most 300; then by service. */
export interface Overview {
  items: Items;
  buckets: Buckets;
  items_per_second: number;
  buckets_per_second: number;
  recent: number[];
  recent_by_service: Record<string, number[]>;
  eta: Eta | null;
  demand: DemandCounts;
  clients: ClientCounts;
  nodes: number;
  faults: number;
  database_delay: number;
}

export interface Waiting {
  reason: string;
  text: string;
  until: string | null;
}

/** What a client does now; `text` says it in words. */
export interface Doing {
  what: string;
  text: string;
  since: string | null;
  until: string | null;
}

export interface ClientInService {
  service: string;
  joined: boolean;
  active: boolean;
  inactive: "idle" | "admin" | null;
  inactive_reason: string | null;
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
  waiting: Waiting | null;
}

export interface ClientRow {
  client_id: string;
  screen_name: string;
  state: string;
  deactivated: string | null;
  doing: Doing;
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

/** Claims of a client that ended in one hour, from `at` on, in a service. */
export interface ClientHour {
  at: string;
  service: string;
  settled: number;
  claims: number;
  given_back: number;
  dead: number;
  disconnects: number;
}

/** Results of one kind: a client's own, and those of all others. */
export interface Outcome {
  service: string;
  label: string;
  own: number;
  others: number;
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

/** JSON Schemas of a service's results and settings, and the settings that are in force. */
export interface ServiceSchemas {
  service: string;
  result_schema: unknown;
  settings_schema: unknown;
  settings: Record<string, unknown>;
}

/** `since` and `priority` are of an item that waits, `since`, `attempts` and `reason` of one that was set aside. */
export interface ItemPlace {
  service: string;
  state: string;
  since: string | null;
  priority: number | null;
  attempts: number | null;
  reason: string | null;
}

export interface ItemRow {
  item: ItemNumber;
  key: string;
  attributes: Record<string, unknown>;
  /** The result that showed it, if nobody added it. */
  found: { item: ItemNumber; service: string; client_id: string; claim: number } | null;
  services: ItemPlace[];
}

/** One handing-out of a bucket: `given` items, of which it `settled` so many; `ended` is null while it is open. */
export interface ClaimRow {
  claim: number;
  bucket_id: string;
  service: string;
  client_id: string;
  begun_at: string;
  ended_at: string | null;
  ended: string | null;
  given: number;
  settled: number;
  valid: boolean;
}

/** `cpu` in cores, `memory` in bytes, `lag` and `database_delay` in seconds. */
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
  database_delay: number;
  ended_at: string | null;
  end_reason: string | null;
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
  severity: Severity;
  node: string | null;
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

/** The results of one kind in one minute or hour of one service. */
export interface KindRow {
  at: string;
  label: string;
  results: number;
}

/** The results of one kind that came in one service since a time. */
export interface ShareRow {
  service: string;
  label: string;
  results: number;
}

/** An account that follows another, or is `followed` by it, or both; `item` if it is one. */
export interface Neighbour {
  key: string;
  item: ItemNumber | null;
  follows: boolean;
  followed: boolean;
}

/** The follow graph around an item's account; of many `neighbours` some, and not `complete`: more than were counted. */
export interface Neighbourhood {
  item: ItemNumber;
  followers: number;
  following: number;
  mutual: number;
  complete: boolean;
  neighbours: Neighbour[];
}

/** The items that have waited for at least `since` seconds, and less than `until`. */
export interface AgeRow {
  since: number;
  until: number | null;
  items: number;
}

export interface LeaderRow {
  place: number;
  client_id: string;
  screen_name: string;
  settled: number;
  flagged: boolean;
}

/** One volunteer in one span; `place` is null where it settled nothing, `total` is of all volunteers. */
export interface StandingRow {
  span: Span;
  place: number | null;
  volunteers: number;
  settled: number;
  total: number;
}

export interface ProgressOfService {
  service: string;
  title: string;
  state: "active" | "paused";
  settled: number;
  total: number;
  percent: number;
  items_per_second: number;
  eta: Eta | null;
  volunteers: number;
}

/** A volunteer who has just finished a bucket, with so many items. */
export interface Contributor {
  screen_name: string;
  service: string;
  items: number;
  at: string;
}

export interface DayLeader {
  place: number;
  screen_name: string;
  settled: number;
}

/** What is done of all services, for everybody. */
export interface Progress {
  project: string;
  at: string;
  settled: number;
  total: number;
  percent: number;
  items_per_second: number;
  eta: Eta | null;
  volunteers: number;
  services: ProgressOfService[];
  contributors: Contributor[];
  leaders: DayLeader[];
}

/** The first rows of a long table. */
export interface FirstRows<T> {
  total: number;
  rows: T[];
}

/** A stored result, as `result.list` answers it. */
export interface ListedResult {
  service: string;
  item: ItemNumber;
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
