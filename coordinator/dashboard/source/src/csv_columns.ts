// The columns of a CSV file: what separates them, and which one is the key.  The command `item import` has the same rule.
import { cellsOf, named } from "./csv_rows";

/** The names, whatever their case, by which a column is known to be the key; the first that is there counts. */
export const KEY_NAMES = ["key", "screen_name", "username", "handle", "account"];
const DELIMITERS = [",", ";", "\t", "|"];
/** A first line by which spreadsheets name the delimiter. */
const SEPARATOR_LINE = /^"?sep=([^\w"\r\n])"?[ \r]*$/i;
/** Characters of a first line that are shown. */
const MAX_SHOWN = 80;

/** The text does not say which of its columns is the key, or what separates them. */
export class UnclearText extends Error {}

export interface Delimiter {
  delimiter: string;
  /** There is one column, and no line has shown yet what would separate two. */
  undecided: boolean;
}

export interface Columns extends Delimiter {
  /** The names of the header, empty for a column without one. */
  names: readonly string[];
  /** The place of the key among them. */
  key: number;
}

/** Return the delimiter that a line such as `sep=;` names. */
export function separatorOf(line: string): string | null {
  return SEPARATOR_LINE.exec(line)?.[1] ?? null;
}

/** Find the delimiter with which a header has a column for the key; null if no delimiter stands in it. */
export function delimiterOf(line: string): Delimiter | null {
  const readings = DELIMITERS.map((delimiter) => ({ delimiter, names: cellsOf(line, delimiter) }));
  const found = readings.filter(({ names }) => placeOfKey(names) >= 0);
  const [first, other] = found;
  if (first === undefined) {
    if (readings.every(({ names }) => names.length === 1)) return null;
    throw noKeyColumn(line);
  }
  if (found.every(({ names }) => names.length === 1)) return { delimiter: ",", undecided: true };
  if (other !== undefined) {
    const ways = found.map(({ delimiter }) => named(delimiter)).join(" or ");
    throw new UnclearText(
      `It is doubtful whether ${ways} separates the columns in this line: ${shown(line)}\n` +
        "Say it by a line before it, such as sep=; for a semicolon.",
    );
  }
  return { delimiter: first.delimiter, undecided: false };
}

/** Make the columns of a header.  Throws `UnclearText` if it has none for the key, or names one twice. */
export function columnsOf(cells: readonly string[], line: string, delimiter: Delimiter): Columns {
  const names = cells.map((name) => name.trim());
  const given = names.filter((name) => name !== "");
  if (new Set(given).size !== given.length) {
    throw new UnclearText(`The header line names a column twice: ${names.join(", ")}.`);
  }
  const key = placeOfKey(names);
  if (key < 0) throw noKeyColumn(line);
  return { ...delimiter, names, key };
}

/** Why the one cell of a row is doubtful: it has what may have been meant as a delimiter. */
export function doubtIn(text: string): string | null {
  const found = /[;\t|]/.exec(text)?.[0];
  return found === undefined ? null : `${named(found)} may separate columns: name them in the first line`;
}

function placeOfKey(names: readonly string[]): number {
  const lower = names.map((name) => name.toLowerCase());
  for (const name of KEY_NAMES) {
    const at = names.includes(name) ? names.indexOf(name) : lower.indexOf(name);
    if (at >= 0) return at;
  }
  return -1;
}

function noKeyColumn(line: string): UnclearText {
  return new UnclearText(
    `The first line names no key column (${KEY_NAMES.join(", ")}): ${shown(line)}\n` +
      "Give the column of the keys such a name in a first line; keys alone, one to a line, need none.",
  );
}

function shown(line: string): string {
  return line.length <= MAX_SHOWN ? line : `${line.slice(0, MAX_SHOWN)}…`;
}
