// Items out of files: the cases are those of `coordinator item import`, too.
import assert from "node:assert/strict";
import { test } from "node:test";
import { UnclearText } from "../src/csv_columns";
import { DistinctTexts } from "../src/distinct_texts";
import { linesOf } from "../src/file_lines";
import { canonical, type KeyForm } from "../src/item_keys";
import { ItemLines, type ParsedItem, type RejectedLine } from "../src/item_lines";
import { NOTHING_SENT, uploadItems } from "../src/item_upload";
import type { Session } from "../src/session";
import keys from "./item_keys.json";
import files from "./item_files.json";

interface FileCase {
  name: string;
  text: string | readonly (string | { repeat: [string, number] })[];
  encoding?: "utf-16le" | "utf-16be" | "latin-1";
  only?: "browser" | "command";
  items?: readonly [number, string][];
  count?: number;
  refused?: readonly [number, string][];
  error?: string;
}

function bytesOf({ text, encoding }: FileCase): Uint8Array {
  const parts = typeof text === "string" ? [text] : text;
  const whole = parts.map((part) => (typeof part === "string" ? part : part.repeat[0].repeat(part.repeat[1]))).join("");
  if (encoding === "latin-1") return Buffer.from(whole, "latin1");
  if (encoding === undefined) return Buffer.from(whole);
  const bytes = Buffer.from(`\uFEFF${whole}`, "utf16le");
  return encoding === "utf-16be" ? bytes.swap16() : bytes;
}

/** A file that comes in chunks of so many bytes. */
function inChunks(bytes: Uint8Array, size: number): Blob {
  let at = 0;
  const stream = (): ReadableStream<Uint8Array> =>
    new ReadableStream({
      pull(controller) {
        if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += size)));
        else controller.close();
      },
    });
  return { stream, slice: (from: number, to: number) => new Blob([bytes.slice(from, to)]) } as unknown as Blob;
}

async function read(file: Blob): Promise<(ParsedItem | RejectedLine)[]> {
  const lines = new ItemLines();
  const records = [];
  for await (const some of linesOf(file)) records.push(...lines.take(some.lines));
  return [...records, ...lines.end()];
}

for (const one of files as FileCase[]) {
  if (one.only === "command") continue;
  test(`file: ${one.name}`, async () => {
    const bytes = bytesOf(one);
    for (const size of bytes.length < 1000 ? [1, 7, 1000] : [1000, 65_536]) {
      if (one.error !== undefined) {
        const { error } = one;
        await assert.rejects(read(inChunks(bytes, size)), (failure) => {
          assert.ok(failure instanceof UnclearText);
          assert.equal(failure.message.slice(0, error.length), error);
          return true;
        });
        continue;
      }
      const records = await read(inChunks(bytes, size));
      const items = records.flatMap((record) => ("json" in record ? [[record.line, record.json]] : []));
      if (one.items !== undefined) assert.deepEqual(items, one.items);
      else assert.equal(items.length, one.count);

      const refused = records.flatMap((record) => ("reason" in record ? [record] : []));
      const expected = one.refused ?? [];
      const told = refused.map(({ line, reason }, at) => [line, reason.slice(0, expected[at]?.[1].length ?? 0)]);
      assert.deepEqual(told, expected);
    }
  });
}

test("which keys are the same", () => {
  for (const [given, handle, exact] of keys as [string, string, string][]) {
    for (const [form, expected] of [["handle", handle], ["exact", exact]] as [KeyForm, string][]) {
      assert.equal(canonical(given, form), expected, `${given}, ${form}`);
    }
  }
});

test("different texts are counted, however many are in memory", async () => {
  for (const most of [3, 1000, 1 << 20]) {
    const texts = new DistinctTexts(most);
    for (let n = 0; n < 50_000; n += 1) texts.add(`key_${(n * 7) % 20_011}`);
    assert.equal(texts.given, 50_000);
    if (most > 3) assert.equal(await texts.count(), 20_011);
  }
  const few = new DistinctTexts(3);
  for (const text of "a b c a d e b f g a".split(" ")) few.add(text);
  assert.equal(await few.count(), 7);
  assert.equal(await new DistinctTexts().count(), 0);
});

test("a key of one file is repeated, however far apart its lines are, and numbers are sent as they stand", async () => {
  const sent: string[] = [];
  const stored = new Set(["known"]);
  const session = {
    request: async (type: string) => (type === "stats" ? { key_form: "handle" } : { limits: { max_message_bytes: 1 << 20 } }),
    requestEncoded: async (_: string, fields: string) => {
      sent.push(fields);
      const given = (JSON.parse(fields) as { items: { key: string }[] }).items.map(({ key }) => key);
      const refused = given.flatMap((key, index) => (key === "bad key" ? [{ index, key, reason: "a blank" }] : []));
      const good = [...new Set(given.filter((key) => key !== "bad key").map((key) => canonical(key, "handle")))];
      const added = good.filter((key) => !stored.has(key));
      added.forEach((key) => stored.add(key));
      return { added: added.length, known: good.length - added.length, refused };
    },
  } as unknown as Session;
  const rows = Array.from({ length: 2500 }, (_, n) => `k${n},900719925474099${n % 10}`);
  const text = ["key,id", "ada,1", ...rows, "@ADA,2", "known,3", "k0,4", "bad key,5", "known,6"].join("\n");
  const seen: number[] = [];
  const done = await uploadItems(session, new Blob([text]), {
    services: ["s"],
    priority: 50,
    onProgress: (progress) => seen.push(progress.added),
    isStopped: () => false,
  });

  const form = 'CSV with "," between the columns, the key is in the column key';
  const refusedLines = [{ line: 2506, key: "bad key", reason: "a blank" }];
  const expected = { form, bytes: text.length, added: 2501, known: 1, repeated: 3, refused: 1, refusedLines };
  assert.deepEqual(done, { ...NOTHING_SENT, ...expected });
  assert.equal(sent.length, 3);
  assert.ok(sent[0]?.includes('{"key":"k8","id":9007199254740998}'));
  assert.ok(sent[0]?.endsWith('"priority":50,"services":["s"]}'));
  assert.deepEqual(seen.slice(0, 2), [1000, 2000]);
});
