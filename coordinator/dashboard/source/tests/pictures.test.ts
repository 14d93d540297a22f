// What is drawn of results and of the follow graph.
import assert from "node:assert/strict";
import { test } from "node:test";
import { MAX_KINDS, OTHERS } from "../src/kinds";
import { tieOf } from "../src/neighbours";
import { sharesByService } from "../src/shares";

test("shares are told for each service, the one with most results first, and rare kinds together", () => {
  const many = Array.from({ length: MAX_KINDS + 2 }, (_, n) => ({ service: "b", label: `kind ${n}`, results: n + 1 }));
  const [first, second, ...more] = sharesByService([
    { service: "a", label: "NON_DM", results: 1 },
    { service: "a", label: "DM", results: 3 },
    { service: "c", label: "DM", results: 0 },
    ...many,
  ]);
  assert.deepEqual(more, []);
  assert.equal(first?.total, 28);
  assert.deepEqual(first?.kinds.at(-1), { label: OTHERS, results: 3 });
  assert.equal(first?.kinds.length, MAX_KINDS + 1);
  assert.deepEqual(second, { service: "a", kinds: [{ label: "DM", results: 3 }, { label: "NON_DM", results: 1 }], total: 4 });
});

test("accounts are tied one way, the other, or both", () => {
  const ties = [[true, true], [true, false], [false, true]].map(([follows = false, followed = false]) => tieOf({ follows, followed }));
  assert.deepEqual(ties, ["mutual", "follower", "followed"]);
});
