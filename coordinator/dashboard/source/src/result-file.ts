// Results as the text of a file.
import { jsonText } from "./exact_json";
import type { ResultField } from "./result-fields";
import type { ListedResult } from "./wire";

export type FileFormat = "csv" | "jsonl";

/** What a spreadsheet would take for a formula when a cell begins with it. */
const RUNS = /^[=+\-@\t\r]/;

/** The first line of a file; JSON Lines have none. */
export function fileHead(format: FileFormat, fields: readonly ResultField[]): string {
  if (format === "jsonl") return "";
  return line(["item", "key", ...valueColumns(fields), "client_id", "bucket_id", "claim", "at", "valid"]);
}

/** One result as a line of a file. */
export function fileLine(format: FileFormat, row: ListedResult, fields: readonly ResultField[]): string {
  if (format === "jsonl") return `${jsonText(row)}\n`;
  const value = row.value as Record<string, unknown>;
  const cells = fields.length === 0 ? [row.value] : fields.map(({ name }) => value?.[name]);
  return line([row.item, row.key, ...cells, row.client_id, row.bucket_id, row.claim, row.at, row.valid]);
}

function valueColumns(fields: readonly ResultField[]): string[] {
  return fields.length === 0 ? ["value"] : fields.map(({ name }) => name);
}

function line(cells: readonly unknown[]): string {
  return `${cells.map(cell).join(",")}\r\n`;
}

/** A cell of a CSV file.  Text that a spreadsheet would run begins with an apostrophe. */
export function cell(value: unknown): string {
  if (value === undefined || value === null) return "";
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") return String(value);
  const text = typeof value === "string" ? value : jsonText(value);
  const inert = RUNS.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}
