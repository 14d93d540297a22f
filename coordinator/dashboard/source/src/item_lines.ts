// Items out of the lines of a file or a pasted text: keys alone, CSV with a header, or JSON Lines.
import { type Columns, columnsOf, type Delimiter, delimiterOf, doubtIn, KEY_NAMES, separatorOf, UnclearText } from "./csv_columns";
import { cellsOf, named, RowReader } from "./csv_rows";
import { jsonText, parseJson } from "./exact_json";
import { type FileLine, MAX_LINE_BYTES } from "./file_lines";
import { forbiddenIn } from "./forbidden";

export interface ParsedItem {
  line: number;
  key: string;
  /** The item as JSON. */
  json: string;
}

export interface RejectedLine {
  line: number;
  text: string;
  reason: string;
}

export type ItemRecord = ParsedItem | RejectedLine;

/** A line is no item, and why. */
class Rejected extends Error {}

/** Reads lines of one kind. */
interface RecordReader {
  /** What the lines are, in words. */
  readonly form: string;
  take(line: FileLine): ItemRecord[];
  /** Return the records that were left open at the end of the text. */
  end(): ItemRecord[];
}

type ReadText = (text: string) => Omit<ParsedItem, "line">;

const NO_TEXT = "The first line has U+0000, which no text has: save a table as CSV, in UTF-8.";
const OLD_LINE_ENDS = "The lines end in a carriage return alone: save the text with usual line ends.";
const JSON_ARRAY = "This is one JSON array: JSON Lines were expected, with an object a line, as `jq -c .[]` writes them.";
const WHOLE_NUMBER = /^(?:0|-?[1-9][0-9]{0,18})$/;
const [LEAST_NUMBER, MOST_NUMBER] = [-(2n ** 63n), 2n ** 63n - 1n];

/** Reads the lines of one text; the first one decides what they are. */
export class ItemLines {
  private separator: string | null = null;
  private reader: RecordReader | null = null;

  /** What the lines are, in words; empty as long as that is not known. */
  get form(): string {
    return this.reader?.form ?? "";
  }

  /** Read some lines.  Throws `UnclearText` where the first of all leaves open what they are. */
  take(lines: readonly FileLine[]): ItemRecord[] {
    const records: ItemRecord[] = [];
    for (const line of lines) {
      this.reader ??= this.readerFor(line);
      if (this.reader !== null) records.push(...this.reader.take(line));
    }
    return records;
  }

  end(): ItemRecord[] {
    return this.reader?.end() ?? [];
  }

  /** Find what the lines are by the first one: what can be read in two ways is refused, as the command refuses it. */
  private readerFor({ text, fault }: FileLine): RecordReader | null {
    if (text.includes("\0")) throw new UnclearText(NO_TEXT);
    if (fault === null && text.trim() === "") return null;
    if (text.trimStart().startsWith("{")) return new SingleLines("JSON Lines", readJson);
    if (text.trim() === "[" || text.trimStart().startsWith("[{")) throw new UnclearText(JSON_ARRAY);
    if (text.replace(/\r$/, "").includes("\r") && !text.includes('"')) throw new UnclearText(OLD_LINE_ENDS);

    const separator = this.separator === null ? separatorOf(text) : null;
    if (separator !== null) {
      this.separator = separator;
      return null;
    }
    const delimiter = this.separator === null ? delimiterOf(text) : { delimiter: this.separator, undecided: false };
    return delimiter === null ? new SingleLines("one key a line", readKey) : new Rows(delimiter);
  }
}

/** Reads lines of which each is an item. */
class SingleLines implements RecordReader {
  constructor(
    readonly form: string,
    private readonly read: ReadText,
  ) {}

  take({ number: line, text, fault }: FileLine): ItemRecord[] {
    if (fault === null && text.trim() === "") return [];
    try {
      if (fault !== null) throw new Rejected(fault);
      return [{ line, ...this.read(text) }];
    } catch (failure) {
      return [{ line, text, reason: reasonOf(failure) }];
    }
  }

  end(): ItemRecord[] {
    return [];
  }
}

/** Reads the rows of a CSV, of which the first is the header; a quoted cell may go over several lines. */
class Rows implements RecordReader {
  private columns: Columns | null = null;
  /** The lines of a row that has begun and not ended. */
  private open: FileLine[] = [];
  private openSize = 0;
  private row: RowReader;

  constructor(private readonly delimiter: Delimiter) {
    this.row = new RowReader(delimiter.delimiter);
  }

  get form(): string {
    if (this.columns === null) return "CSV";
    const { names, key, delimiter } = this.columns;
    const between = names.length > 1 ? ` with ${named(delimiter)} between the columns` : "";
    return `CSV${between}, the key is in the column ${names[key]}`;
  }

  take(line: FileLine): ItemRecord[] {
    return this.readAll([line]);
  }

  end(): ItemRecord[] {
    if (this.open.length === 0) return [];
    const records = this.giveUp("a quote that does not end");
    return [...records, ...this.end()];
  }

  /** Read lines, the last one first. */
  private readAll(left: FileLine[]): ItemRecord[] {
    const records: ItemRecord[] = [];
    for (let line = left.pop(); line !== undefined; line = left.pop()) {
      if (this.open.length === 0 && line.fault === null && line.text.trim() === "") continue;
      this.open.push(line);
      try {
        const item = this.readLine(line);
        if (item !== null) records.push(item);
      } catch (failure) {
        // A quote that does not end has swallowed lines that may be good: read them again.
        const [first, swallowed] = this.closeRow();
        if (this.columns === null) throw headerFault(failure);
        records.push({ line: first.number, text: first.text, reason: reasonOf(failure) });
        left.push(...swallowed.reverse());
      }
    }
    return records;
  }

  /** Read on in the row that is open; returns its item if it ends, unless it is the header. */
  private readLine({ text, fault }: FileLine): ParsedItem | null {
    if (fault !== null) throw new Rejected(fault);
    this.openSize += text.length + 1;
    if (this.openSize > MAX_LINE_BYTES) throw new Rejected("a quote that does not end");
    if (!this.row.take(text)) return null;

    const cells = this.row.cells;
    const line = this.open[0] as FileLine;
    if (this.columns === null) {
      this.columns = columnsOf(cells, line.text, this.delimiter);
      this.closeRow();
      return null;
    }
    const item = itemOf(cells, this.columns);
    this.closeRow();
    return { line: line.number, ...item };
  }

  private giveUp(reason: string): ItemRecord[] {
    const [first, swallowed] = this.closeRow();
    if (this.columns === null) throw headerFault(new Rejected(reason));
    return [{ line: first.number, text: first.text, reason }, ...this.readAll(swallowed.reverse())];
  }

  /** Forget the row that is open; returns its first line, and the others. */
  private closeRow(): [FileLine, FileLine[]] {
    const [first, ...others] = this.open;
    this.open = [];
    this.openSize = 0;
    this.row = new RowReader(this.delimiter.delimiter);
    return [first as FileLine, others];
  }
}

function itemOf(cells: readonly string[], { names, key: at, undecided }: Columns): Omit<ParsedItem, "line"> {
  if (cells.length !== names.length) {
    throw new Rejected(`${cells.length} ${cells.length === 1 ? "cell" : "cells"}, and the first line has ${names.length}`);
  }
  const key = strip(cells[at] ?? "");
  if (key === "") throw new Rejected(`no key: '${names[at]}' is empty`);
  const doubt = undecided ? doubtIn(key) : null;
  if (doubt !== null) throw new Rejected(doubt);

  const fields = [`"key":${JSON.stringify(key)}`];
  cells.forEach((cell, place) => {
    const name = names[place];
    if (place !== at && cell !== "" && name) fields.push(`${JSON.stringify(name)}:${valueOf(cell)}`);
  });
  return { key, json: `{${fields.join(",")}}` };
}

/** A cell as JSON: a whole number of 64 bits is one, all else stays text.  The command has the same rule. */
function valueOf(cell: string): string {
  const whole = WHOLE_NUMBER.test(cell) && (cell.length < 19 || (BigInt(cell) >= LEAST_NUMBER && BigInt(cell) <= MOST_NUMBER));
  return whole ? cell : JSON.stringify(cell);
}

/** The one key of a line.  Throws where the line may have more than that. */
function readKey(text: string): Omit<ParsedItem, "line"> {
  const [cell = "", ...more] = cellsOf(strip(text), ",");
  const doubt = more.length > 0 ? '"," may separate columns: name them in the first line' : doubtIn(cell);
  if (doubt !== null) throw new Rejected(doubt);
  const key = strip(cell);
  return { key, json: `{"key":${JSON.stringify(key)}}` };
}

function readJson(text: string): Omit<ParsedItem, "line"> {
  if (text.replaceAll("\\\\", "").includes("\\u0000")) throw new Rejected("U+0000 and lone surrogates are refused.");
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (failure) {
    throw new Rejected(`not JSON: ${reasonOf(failure)}`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Rejected("not a JSON object");

  const fields = value as Record<string, unknown>;
  const name = KEY_NAMES.find((one) => Object.hasOwn(fields, one)) ?? "key";
  const { [name]: given, ...attributes } = fields;
  const key = typeof given === "bigint" || Number.isInteger(given) ? String(given) : given;
  if (typeof key !== "string" || key === "") throw new Rejected(`no key: expected a text as '${name}'`);

  const item = { key, ...attributes };
  const forbidden = forbiddenIn(item);
  if (forbidden !== null) throw new Rejected(forbidden);
  return { key, json: jsonText(item) };
}

/** Take the blanks off both ends; an invisible mark is none, and the server refuses it by its name. */
function strip(text: string): string {
  return text.replace(/^(?:(?!\uFEFF)\s)+|(?:(?!\uFEFF)\s)+$/g, "");
}

function headerFault(failure: unknown): UnclearText {
  return failure instanceof UnclearText
    ? failure
    : new UnclearText(`The header line cannot be read: ${reasonOf(failure)}.`);
}

function reasonOf(failure: unknown): string {
  return failure instanceof Error ? failure.message : String(failure);
}
