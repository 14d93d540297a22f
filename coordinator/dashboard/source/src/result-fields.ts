// The fields of a service's results, as its schema tells them: columns, filters and cells of files are made of them.
import { wholeNumber } from "./exact_json";

export interface ResultField {
  name: string;
  /** The values it may have, if they are few; null if it is any of its type. */
  choices: readonly unknown[] | null;
  type: "string" | "number" | "boolean" | "other";
}

interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  anyOf?: Schema[];
  oneOf?: Schema[];
  $ref?: string;
  properties?: Record<string, Schema>;
  $defs?: Record<string, Schema>;
}

/** The fields of an object's schema; none where it does not name them. */
export function fieldsOf(schema: unknown): ResultField[] {
  if (typeof schema !== "object" || schema === null) return [];
  const { properties = {}, $defs = {} } = schema as Schema;
  return Object.entries(properties).map(([name, property]) => fieldOf(name, property, $defs));
}

function fieldOf(name: string, property: Schema, definitions: Record<string, Schema>): ResultField {
  const branches = [property, ...(property.anyOf ?? []), ...(property.oneOf ?? [])]
    .map((branch) => definitions[branch.$ref?.split("/").pop() ?? ""] ?? branch)
    .filter((branch) => branch.type !== "null");
  const choices = branches.flatMap((branch) => branch.enum ?? ("const" in branch ? [branch.const] : []));
  if (choices.length > 0) return { name, choices, type: "string" };

  const types = new Set(branches.flatMap((branch) => branch.type ?? []).filter((type) => type !== "null"));
  const type = types.size === 1 ? [...types][0] : undefined;
  if (type === "boolean") return { name, choices: [true, false], type };
  if (type === "integer" || type === "number") return { name, choices: null, type: "number" };
  return { name, choices: null, type: type === "string" ? "string" : "other" };
}

/** Read what was typed as a value of a field; undefined if it is none. */
export function typedValue(field: ResultField, text: string): unknown {
  if (field.choices !== null) return field.choices.find((choice) => String(choice) === text);
  if (field.type === "number") {
    const value = wholeNumber(text.trim()) ?? Number(text);
    return text.trim() !== "" && (typeof value === "bigint" || Number.isFinite(value)) ? value : undefined;
  }
  return text;
}
