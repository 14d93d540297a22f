// Items out of a file or a pasted text, line by line: keys alone, CSV with a header, or JSON Lines.
import { parseJson } from "./exact_json";

/** The names by which a column is known to be the key, as `coordinator item import` knows them. */
const KEY_NAMES = ["key", "screen_name", "username", "handle", "account"];
const DELIMITERS = [",", ";", "\t", "|"];
/** A first line by which spreadsheets name the delimiter. */
const SEPARATOR_LINE = /^"?sep=([^\w"])"?\s*$/i;

export type Item = Record<string, unknown>;

/** A line of the text: an item, or why it is none. */
export interface ItemLine {
  line: number;
  item: Item | null;
  reason: string;
}

/** The text does not say which of its columns is the key, or what separates them. */
export class UnclearText extends Error {}

type ReadLine = (text: string) => Item;

/** Reads the lines of one text; the first one decides what they are. */
export class ItemLines {
  private line = 0;
  private delimiters: readonly string[] = DELIMITERS;
  private read: ReadLine | null = null;

  /** Read the next line; null for one without an item.  Throws `UnclearText` at the first line. */
  next(text: string): ItemLine | null {
    this.line += 1;
    if (text.trim() === "") return null;
    if (this.read !== null) return this.item(text, this.read);

    const separator = SEPARATOR_LINE.exec(text)?.[1];
    if (separator !== undefined && this.delimiters === DELIMITERS) {
      this.delimiters = [separator];
      return null;
    }
    this.read = readerFor(text, this.delimiters);
    return this.read === readKey || this.read === readJson ? this.item(text, this.read) : null; // else it is a header
  }

  private item(text: string, read: ReadLine): ItemLine {
    try {
      return { line: this.line, item: read(text), reason: "" };
    } catch (failure) {
      return { line: this.line, item: null, reason: failure instanceof Error ? failure.message : String(failure) };
    }
  }
}

/** Find what the lines are by the first one: what can be read in two ways is refused, as the command refuses it. */
function readerFor(first: string, delimiters: readonly string[]): ReadLine {
  if (first.trimStart().startsWith("{")) return readJson;
  const headers = delimiters
    .map((delimiter) => ({ delimiter, names: namesOf(first, delimiter) }))
    .map((header) => ({ ...header, key: placeOfKey(header.names) }));
  const found = headers.filter(({ key }) => key >= 0);
  const [header, other] = found;

  if (header === undefined) {
    if (delimiters === DELIMITERS && headers.every(({ names }) => names.length === 1)) return readKey;
    throw new UnclearText(`The first line names no column ${KEY_NAMES.join(", ")}: ${first.slice(0, 80)}`);
  }
  if (found.every(({ names }) => names.length === 1)) return (text) => ({ key: loneField(text, delimiters) });
  if (other !== undefined) {
    const ways = found.map(({ delimiter }) => named(delimiter)).join(" or ");
    throw new UnclearText(`It is doubtful whether ${ways} separates the columns: ${first.slice(0, 80)}`);
  }
  return (text) => readRow(text, header.delimiter, header.names, header.key);
}

function namesOf(first: string, delimiter: string): string[] {
  try {
    return fieldsOf(first, delimiter).map((name) => name.trim());
  } catch {
    return [first]; // not with this delimiter
  }
}

function placeOfKey(names: readonly string[]): number {
  const places = KEY_NAMES.map((name) => names.findIndex((one) => one.toLowerCase() === name));
  return places.find((at) => at >= 0) ?? -1;
}

function readRow(text: string, delimiter: string, names: readonly string[], key: number): Item {
  const fields = fieldsOf(text, delimiter);
  if (fields.length !== names.length) throw new Error(`expected ${names.length} fields, not ${fields.length}`);
  const item: Item = { key: (fields[key] ?? "").trim() };
  names.forEach((name, at) => {
    if (at !== key && name !== "" && fields[at]) item[name] = fields[at];
  });
  return item;
}

/** The one field of a line.  Throws where the line may have more of them. */
function loneField(text: string, delimiters: readonly string[]): string {
  const [usual = ",", ...others] = delimiters;
  const [field = "", ...more] = fieldsOf(text.trim(), usual);
  const doubt = more.length > 0 ? usual : others.find((delimiter) => field.includes(delimiter));
  if (doubt !== undefined) throw new Error(`${named(doubt)} may separate columns: name them in the first line`);
  return field;
}

function named(delimiter: string): string {
  return delimiter === "\t" ? "tab" : `"${delimiter}"`;
}

function readKey(text: string): Item {
  return { key: loneField(text, DELIMITERS) };
}

function readJson(text: string): Item {
  const value: unknown = parseJson(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("expected an object");
  const fields = value as Item;
  const name = KEY_NAMES.find((one) => one in fields);
  if (name === undefined) throw new Error(`expected a field ${KEY_NAMES.join(", ")}`);
  const { [name]: key, ...attributes } = fields;
  return { ...attributes, key };
}

/** The fields of one line of CSV.  Throws where a quoted field does not end on it. */
function fieldsOf(text: string, delimiter: string): string[] {
  const fields: string[] = [];
  let at = 0;
  while (at <= text.length) {
    if (text[at] !== '"') {
      const end = text.indexOf(delimiter, at);
      fields.push(text.slice(at, end < 0 ? text.length : end));
      if (end < 0) break;
      at = end + 1;
      continue;
    }

    let field = "";
    at += 1;
    for (;;) {
      const quote = text.indexOf('"', at);
      if (quote < 0) throw new Error("a quoted field does not end on its line");
      field += text.slice(at, quote);
      at = quote + 1;
      if (text[at] !== '"') break;
      field += '"';
      at += 1;
    }
    fields.push(field);
    if (at >= text.length) break;
    if (text[at] !== delimiter) throw new Error("a delimiter was expected after a quoted field");
    at += 1;
  }
  return fields;
}

/** The lines of a file, with the bytes read so far; only a part of it is in memory at any time. */
export async function* linesOf(file: Blob): AsyncGenerator<{ text: string; bytes: number }> {
  const reader = file.stream().getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let bytes = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    bytes += value.length;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop() ?? "";
    for (const text of lines) yield { text, bytes };
  }
  rest += decoder.decode();
  if (rest !== "") yield { text: rest, bytes };
}
