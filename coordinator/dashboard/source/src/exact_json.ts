// JSON whose whole numbers are exact: those that a number of the browser would round become a `bigint`, and are written
// as they came.  An account's id must not become that of another.

/** Stands before the digits of a whole number in a text; no text of the server has this character. */
const MARK = "\u0000";

/** A text, or a number that is not part of one. */
const TEXT_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
/** So many digits may be more than a number of the browser keeps. */
const LARGE = /\d{16}/;
const WHOLE = /^-?\d+$/;
/** A marked number, as `JSON.stringify` writes it. */
const WRITTEN_MARK = /"\\u0000(-?\d+)"/g;

/** A whole number as exactly as it is written; null for any other text. */
export function wholeNumber(text: string): number | bigint | null {
  if (!WHOLE.test(text)) return null;
  const value = Number(text);
  return Number.isSafeInteger(value) ? value : BigInt(text);
}

/** Read JSON; throws a SyntaxError as `JSON.parse` does. */
export function parseJson(text: string): unknown {
  if (!LARGE.test(text)) return JSON.parse(text) as unknown;

  const marked = text.replace(TEXT_OR_NUMBER, (part) =>
    typeof wholeNumber(part) === "bigint" ? `"\\u0000${part}"` : part,
  );
  if (marked === text) return JSON.parse(text) as unknown;
  return JSON.parse(marked, (_name, value: unknown) =>
    typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(1)) : value,
  ) as unknown;
}

/** Write JSON, also of what `parseJson` has read. */
export function jsonText(value: unknown, indent?: number): string {
  let large = false;
  const text = JSON.stringify(
    value,
    (_name, part: unknown) => {
      if (typeof part !== "bigint") return part;
      large = true;
      return `${MARK}${part}`;
    },
    indent,
  );
  return large ? text.replace(WRITTEN_MARK, "$1") : text;
}
