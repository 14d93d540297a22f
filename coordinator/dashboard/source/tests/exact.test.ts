// Whole numbers that a number of the browser would round, on their way from the server to pages, links and files.
import assert from "node:assert/strict";
import { test } from "node:test";
import { jsonText, parseJson, wholeNumber } from "../src/exact_json";
import { itemNumber } from "../src/item_number";
import { ItemLines } from "../src/item_lines";
import { typedValue } from "../src/result-fields";
import { fileLine } from "../src/result-file";
import { hiddenSides } from "../src/scroller";
import { changesOf, settingFields, textOf } from "../src/settings";

const LARGE = "9007199254740993";

test("JSON is read and written with every digit of its whole numbers", () => {
  for (const text of [
    `{"id":${LARGE},"others":[-${LARGE},1,18446744073709551615,"${LARGE}"]}`,
    `[9007199254740991,9007199254740992]`,
    `{"${LARGE}":"say \\"${LARGE}\\", \\\\","n":[${LARGE}]}`,
    `{"a":${"1".repeat(400)}}`,
    "{}",
  ]) {
    assert.equal(jsonText(parseJson(text)), text);
  }
  assert.deepEqual(parseJson(`[${LARGE}, 12, 0.1234567890123456789, 1e300]`), [BigInt(LARGE), 12, 0.12345678901234568, 1e300]);
  assert.equal(jsonText({ id: BigInt(LARGE) }, 2), `{\n  "id": ${LARGE}\n}`);
  assert.throws(() => parseJson(`{"id": ${LARGE}`), SyntaxError);
  assert.throws(() => parseJson(`"\\u0000${LARGE} x`), SyntaxError);
});

test("a long text is read as quickly as others", () => {
  const text = jsonText({ text: `${"x".repeat(1_000_000)}${LARGE}`, id: BigInt(LARGE) });
  assert.equal(jsonText(parseJson(text)), text);
});

test("texts are whole numbers, or none", () => {
  assert.deepEqual(["12", "-3", LARGE, "1.5", "1e3", "", "a"].map(wholeNumber), [12, -3, BigInt(LARGE), null, null, null, null]);
  assert.deepEqual(["7", LARGE, "0", "-1", "4611686018427387905", "x"].map(itemNumber), [7, BigInt(LARGE), null, null, null, null]);
  assert.equal(String(itemNumber("4611686018427387904")), "4611686018427387904");
});

test("a file has every digit of a number", () => {
  const row = parseJson(
    `{"service":"s","item":${LARGE},"key":"k","value":{"id":-${LARGE},"all":[${LARGE}]},"client_id":"c","session_id":"","bucket_id":"b","claim":${LARGE},"at":"t","valid":true}`,
  ) as Parameters<typeof fileLine>[1];
  const fields = (["id", "all"] as const).map((name) => ({ name, choices: null, type: "other" as const }));
  assert.equal(fileLine("csv", row, fields), `${LARGE},k,-${LARGE},[${LARGE}],c,b,${LARGE},t,true\r\n`);
  assert.deepEqual(parseJson(fileLine("jsonl", row, [])), row);
});

test("a number that is typed into a filter or a setting keeps its digits", () => {
  const field = { name: "id", choices: null, type: "number" as const };
  assert.deepEqual([LARGE, " 12 ", "1.5", "x", ""].map((text) => typedValue(field, text)), [BigInt(LARGE), 12, 1.5, undefined, undefined]);
  const fields = settingFields({ properties: { n: { type: "integer" }, map: { type: "object" } } });
  const changes = changesOf(fields, { n: 1, map: { a: 1 } }, { n: LARGE, map: `{"a": ${LARGE}}` });
  assert.deepEqual(changes.map(({ sent }) => jsonText(sent)), [LARGE, `{"a":${LARGE}}`]);
  assert.equal(textOf(fields[1]!, { a: BigInt(LARGE) }), `{\n  "a": ${LARGE}\n}`);
});

test("an item that is added out of JSON Lines keeps the digits of its attributes", () => {
  const text = `{"key": "ada", "id": ${LARGE}, "n": 0.5}`;
  const json = `{"key":"ada","id":${LARGE},"n":0.5}`;
  assert.deepEqual(new ItemLines().take([{ number: 1, text, fault: null }]), [{ line: 1, key: "ada", json }]);
});

test("the sides on which a region hides something are known", () => {
  assert.equal(hiddenSides(0, 300, 300), "none");
  assert.equal(hiddenSides(0, 600, 300), "right");
  assert.equal(hiddenSides(120.4, 600, 300), "both");
  assert.equal(hiddenSides(299.5, 600, 300), "left");
});
