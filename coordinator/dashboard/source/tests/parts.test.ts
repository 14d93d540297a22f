// The parts of the page that draw nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { concerns } from "../src/concerns";
import { SeenPages } from "../src/cursors";
import { demandByCause } from "../src/demand";
import { overviewEta, serviceEta } from "../src/eta";
import { groupEvents } from "../src/event-groups";
import { splitName, waitingText } from "../src/format";
import { MAX_KINDS, OTHERS, sharesOf } from "../src/kinds";
import { fieldsOf, typedValue } from "../src/result-fields";
import { fileHead, fileLine } from "../src/result-file";
import { parse, searchStillApplies, withoutFilters } from "../src/route";
import { changesOf, settingFields } from "../src/settings";
import { nextIndex } from "../src/tabs";
import { pageTitle, troubleText } from "../src/title";
import { eventTone } from "../src/tones";
import type { EventRow } from "../src/wire";

const NOBODY = { pending: 0, clients: 0, active: 0, reasons: {} };
const SOMEBODY = { pending: 0, clients: 0, active: 1, reasons: {} };
const LEFT = { waiting: 5, ready: 0, claimed: 0, dead: 0, settled: 4, quarantined: 1, total: 10 };
const DONE = { ...LEFT, waiting: 0, settled: 9 };
const ETA = { low: 28_800, high: 180_000 };

test("an ETA is only told while somebody works", () => {
  const row = { state: "active", items: LEFT, eta: ETA, demand: SOMEBODY, items_per_second: 0 };
  assert.deepEqual(serviceEta(row), { text: "8 – 50 h", note: "of time in which work goes on" });
  assert.deepEqual(serviceEta({ ...row, demand: NOBODY }), {
    text: "nobody works on it",
    note: "8 – 50 h of work at the last pace",
  });
  assert.deepEqual(serviceEta({ ...row, state: "paused" }), { text: "paused", note: null });
  assert.deepEqual(overviewEta({ ...row, demand: NOBODY }), { text: "nobody works", note: null });
  assert.deepEqual(overviewEta({ ...row, eta: null }), { text: "no estimate yet", note: null });
});

test("what is all done has no time in which work goes on", () => {
  const row = { state: "paused", items: DONE, eta: { low: 0, high: 0 }, demand: SOMEBODY, items_per_second: 1 };
  assert.deepEqual(serviceEta(row), { text: "all done", note: null });
  assert.deepEqual(overviewEta(row), { text: "all done", note: null });
});

test("to be well again is good news", () => {
  assert.equal(eventTone("health", "info"), "good");
  assert.equal(eventTone("health", "warning"), "warn");
  assert.equal(eventTone("fault", "error"), "bad");
  assert.equal(eventTone("release", "info"), "neutral");
});

test("a long name keeps its end and loses nothing", () => {
  assert.equal(splitName("client-00001"), null);
  const id = `${"a".repeat(58)}-00001`;
  assert.deepEqual(splitName(id), ["a".repeat(58), "-00001"]);
  assert.deepEqual(splitName("🦊".repeat(25)), ["🦊".repeat(19), "🦊".repeat(6)]);
});

test("a search that was typed before a link does not change the link's address", () => {
  const typedAt = parse("#/clients?search=ann");
  assert.equal(searchStillApplies(typedAt, parse("#/clients?search=ann&sort=held"), "search"), true);
  assert.equal(searchStillApplies(typedAt, parse("#/clients?search=bob"), "search"), false);
  assert.equal(searchStillApplies(typedAt, parse("#/services?search=ann"), "search"), false);
});

test("filters are offered for taking away only where one is set", () => {
  assert.equal(withoutFilters({ sort: "held", service: "a" }, ["search", "state"]), null);
  const { after, page, state, ...kept } = withoutFilters({ sort: "held", state: "active", page: "2" }, ["state"]) ?? {};
  assert.deepEqual([after, page, state, kept], [undefined, undefined, undefined, { sort: "held" }]);
});

test("the way back from a page outlives a reload", () => {
  const stored = new Map<string, string>();
  const storage = {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => void stored.set(key, value),
  };

  const pages = new SeenPages(storage);
  pages.visit("clients", 1, null);
  assert.equal(stored.size, 0);
  pages.visit("clients", 2, "b");
  pages.visit("clients", 3, "c");
  assert.equal(new SeenPages(storage).visit("clients", 3, "c").get(2), "b");
  assert.equal(new SeenPages(storage).visit("events", 3, "z").get(2), undefined);

  for (let page = 2; page < 2_000; page += 1) pages.visit("clients", page, `${page}`);
  const cursors = new SeenPages(storage).visit("clients", 1_999, "1999");
  assert.deepEqual([cursors.size, cursors.get(1), cursors.get(1_998)], [500, null, "1998"]);
});

test("the title tells of trouble first", () => {
  const clients = { registered: 9, connected: 9, active: 9, watched: 9, flagged: 2, deactivated: 0 };
  assert.equal(troubleText("live", false, { clients, faults: 1 }), "1 fault");
  assert.equal(troubleText("live", false, { clients, faults: 0 }), "2 flagged");
  assert.equal(troubleText("live", false, { clients: { ...clients, flagged: 0 }, faults: 0 }), null);
  assert.equal(troubleText("waiting", true, { clients, faults: 1 }), "Server away");
  assert.equal(troubleText("live", false, null), null);
  assert.equal(pageTitle("Clients", "Server away"), "Server away · Clients · Coordinator");
  assert.equal(pageTitle(null, null), "Coordinator");
});

test("a wait is told with its end only while that is to come", () => {
  const waiting = { reason: "backing_off", text: "it gave back 4 buckets in a row", until: "2026-03-01T12:00:00Z" };
  const end = Date.parse(waiting.until);
  assert.match(waitingText(waiting, end - 1), /^waits: it gave back 4 buckets in a row, until .*00/);
  assert.equal(waitingText(waiting, end), "waits: it gave back 4 buckets in a row");
  assert.equal(waitingText({ ...waiting, until: null }, end - 1), "waits: it gave back 4 buckets in a row");
});

test("what needs a person is listed with its page, and nothing else", () => {
  const clients = { registered: 9, connected: 9, active: 9, watched: 9, flagged: 0, deactivated: 0 };
  const row = {
    service: "a",
    title: "A",
    plugin: "a",
    state: "active",
    items: LEFT,
    buckets: { ready: 0, claimed: 0, dead: 0 },
    items_per_second: 0,
    eta: null,
    oldest: [],
    demand: NOBODY,
  };
  const idle = [{ ...row, demand: SOMEBODY }, { ...row, items: DONE }, { ...row, state: "paused" }];
  assert.deepEqual(concerns({ faults: 0, clients, items: { ...LEFT, quarantined: 0 }, demand: NOBODY, database_delay: 0.1 }, idle, [], 0), []);
  assert.deepEqual(
    concerns(
      { faults: 1, clients: { ...clients, flagged: 2 }, items: LEFT, demand: NOBODY, database_delay: 0.4 },
      [...idle, row],
      [{ kind: "node", at: "2026-01-01T12:00:00Z" }, { kind: "node", at: "2026-01-01T10:00:00Z" }],
      Date.parse("2026-01-01T12:30:00Z"),
    ).map(({ text }) => text),
    ["1 node gone in the last hour", "1 fault in the last hour", "the database is slow: 400 ms for a small change", "2 flagged clients", "1 quarantined item", "nobody works on a"],
  );
  const calm = { faults: 0, clients, items: { ...LEFT, quarantined: 0 }, demand: NOBODY, database_delay: 0 };
  const both = concerns(calm, [row, { ...row, service: "b" }], [], 0);
  assert.deepEqual(both, [{ text: "nobody works on 2 services", path: ["services"], query: { state: "active" } }]);
  const spent = { pending: 1, clients: 1, active: 1, reasons: { budget: 1 } };
  const budget = concerns({ ...calm, demand: spent }, [{ ...row, demand: spent }], [], 0);
  assert.deepEqual(budget, [{ text: "budget spent of a", path: ["services", "a"] }]);
});

test("an ETA names what it leaves out", () => {
  const row = { service: "a", title: "A", plugin: "a", buckets: { ready: 0, claimed: 0, dead: 0 }, oldest: [] };
  const worked = { ...row, state: "active", items: LEFT, eta: ETA, demand: SOMEBODY, items_per_second: 0 };
  const idle = { ...worked, service: "b", demand: NOBODY };
  assert.equal(overviewEta(worked, [worked]).note, "of time in which work goes on");
  assert.equal(overviewEta(worked, [worked, idle]).note, "without b: nobody works there");
  assert.equal(
    overviewEta(worked, [idle, { ...worked, state: "paused" }, { ...idle, items: DONE }]).note,
    "without 2 services: nobody works there",
  );
});

test("demand is told by its causes, and what has none yet is being served", () => {
  const reasons = { at_limit: 2, newcomer: 3, making: 1, paused: 4 };
  assert.deepEqual(
    demandByCause({ pending: 12, reasons }).map(({ cause, buckets }) => [cause, buckets]),
    [["nothing is ready", 1], ["paused", 4], ["held back", 5], ["just asked", 2]],
  );
  assert.match(demandByCause({ pending: 5, reasons })[2]?.why[0] ?? "", /^newcomers/);
  assert.deepEqual(demandByCause({ pending: 0, reasons: {} }), []);
});

test("events that repeat are one line, for ten minutes", () => {
  const event = (id: number, minute: number, change: object = {}): EventRow => ({
    event_id: id,
    at: `2026-01-01T12:${String(minute).padStart(2, "0")}:00Z`,
    kind: "release",
    severity: "info",
    node: "n",
    client_id: "ada",
    service: "dm_check",
    bucket_id: `b${id}`,
    text: `given back with ${id} items left`,
    ...change,
  });
  const rows = [event(9, 30), event(8, 29, { client_id: "bob" }), event(7, 21), event(6, 9), event(5, 8, { text: "x" })];
  const groups = groupEvents(rows).map((group) => group.rows.map(({ event_id }) => event_id));
  assert.deepEqual(groups, [[9, 7], [8], [6], [5]]);
});

const RESULT_SCHEMA = {
  properties: {
    dm: { enum: ["DM", "NON_DM"] },
    missing: { type: "boolean" },
    count: { anyOf: [{ type: "integer" }, { type: "null" }] },
    accounts: { type: "array" },
    kind: { anyOf: [{ $ref: "#/$defs/Kind" }, { type: "null" }] },
    text: { type: ["string", "null"] },
  },
  $defs: { Kind: { enum: ["a", 1] } },
};

test("fields of a result are read from its schema, and values as their types", () => {
  const fields = fieldsOf(RESULT_SCHEMA);
  assert.deepEqual(
    fields.map(({ name, type, choices }) => [name, type, choices]),
    [
      ["dm", "string", ["DM", "NON_DM"]],
      ["missing", "boolean", [true, false]],
      ["count", "number", null],
      ["accounts", "other", null],
      ["kind", "string", ["a", 1]],
      ["text", "string", null],
    ],
  );
  const typed = (name: string, text: string): unknown => {
    const field = fields.find((candidate) => candidate.name === name);
    return field && typedValue(field, text);
  };
  assert.deepEqual(
    [typed("missing", "false"), typed("count", "7"), typed("count", "x"), typed("kind", "1"), typed("dm", "no")],
    [false, 7, undefined, 1, undefined],
  );
  assert.deepEqual(fieldsOf(true), []);
});

test("a line of a CSV file has a cell for each field, and nothing that a spreadsheet would run", () => {
  const fields = fieldsOf({ properties: { text: { type: "string" }, list: { type: "array" } } });
  const row = {
    service: "s",
    item: 1,
    key: "=1+1",
    value: { text: 'say "a,\nb"', list: [1, -2] },
    client_id: "c",
    session_id: "x",
    bucket_id: "b",
    claim: 4,
    at: "t",
    valid: true,
  };
  assert.equal(fileHead("csv", fields), "item,key,text,list,client_id,bucket_id,claim,at,valid\r\n");
  assert.equal(fileLine("csv", row, fields), `1,'=1+1,"say ""a,\nb""","[1,-2]",c,b,4,t,true\r\n`);
  assert.equal(fileLine("csv", { ...row, key: "k", value: "-x" }, []), "1,k,'-x,c,b,4,t,true\r\n");
  assert.deepEqual(JSON.parse(fileLine("jsonl", row, fields)), row);
});

test("only what differs from what is in force is sent, and null for a default", () => {
  const fields = settingFields({
    properties: {
      size: { type: "integer", default: 180 },
      after: { anyOf: [{ type: "number" }, { type: "null" }], default: null },
      only: { type: "boolean", default: false },
      enrol: { enum: ["all", "named"], default: "all" },
      agents: { type: "object", default: {} },
    },
  });
  const inForce = { size: 3, after: null, only: false, enrol: "all", agents: {} };
  const sent = (texts: Record<string, string>): unknown =>
    changesOf(fields, inForce, texts).map((change) => [change.name, change.sent]);
  assert.deepEqual(sent({}), []);
  assert.deepEqual(sent({ size: "3", after: "", only: "false", agents: "{ }" }), []);
  assert.deepEqual(sent({ size: "", after: "1.5", only: "true", enrol: "named", agents: '{"a":"1"}' }), [
    ["size", null],
    ["after", 1.5],
    ["only", true],
    ["enrol", "named"],
    ["agents", { a: "1" }],
  ]);
  assert.throws(() => sent({ size: "1.5" }), /size: expected a whole number/);
  assert.throws(() => sent({ agents: "{" }), /agents: expected JSON/);
});

test("the arrow keys go round the tabs", () => {
  assert.deepEqual(
    ["ArrowRight", "ArrowLeft", "Home", "End", "a"].map((key) => nextIndex(key, 0, 3)),
    [1, 2, 0, 2, null],
  );
});

test("results are shared out to bars and kinds, by name and rare ones together", () => {
  const at = (seconds: number): string => new Date(seconds * 1000).toISOString();
  const { kinds, bars, total } = sharesOf(
    [
      { at: at(120), label: "DM", results: 3 },
      { at: at(60), label: "NON_DM", results: 9 },
      { at: at(60), label: "DM", results: 1 },
    ],
    60,
    185,
    60,
  );
  assert.deepEqual(kinds, [
    { label: "DM", results: 4 },
    { label: "NON_DM", results: 9 },
  ]);
  assert.deepEqual(bars, [
    { begin: 60, results: [1, 9] },
    { begin: 120, results: [3, 0] },
    { begin: 180, results: [0, 0] },
  ]);
  assert.equal(total, 13);
  const many = Array.from({ length: 8 }, (_, n) => ({ at: at(60), label: `kind ${n}`, results: n + 1 }));
  const shares = sharesOf(many, 60, 120, 60);
  assert.equal(shares.kinds.length, MAX_KINDS + 1);
  assert.deepEqual(shares.kinds.at(-1), { label: OTHERS, results: 6 });
});
