// A service's settings as texts of a form, by their JSON Schema, and what a change of the texts means.
import { jsonText, parseJson, wholeNumber } from "./exact_json";

export interface SettingField {
  name: string;
  description: string;
  kind: "choice" | "yes or no" | "number" | "text" | "json";
  choices: readonly string[];
  /** A number that it must be a whole one of. */
  whole: boolean;
  least: number | null;
  most: number | null;
  /** It has no default, and a service needs a value of it. */
  required: boolean;
  /** The value without one of its own; undefined where there is none. */
  default: unknown;
}

interface Schema {
  type?: string | string[];
  enum?: unknown[];
  anyOf?: Schema[];
  minimum?: number;
  maximum?: number;
  description?: string;
  default?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
}

/** One setting whose text says something else than what is in force; null sets it back to its default. */
export interface SettingChange {
  name: string;
  before: unknown;
  after: unknown;
  sent: unknown;
}

export function settingFields(schema: unknown): SettingField[] {
  const { properties = {}, required = [] } = (schema as Schema | null) ?? {};
  return Object.entries(properties).map(([name, property]) => {
    const branches = [property, ...(property.anyOf ?? [])];
    const types = new Set(branches.flatMap((branch) => branch.type ?? []));
    const choices = branches.flatMap((branch) => branch.enum ?? []).map(String);
    const first = (key: "minimum" | "maximum"): number | null => branches.find((branch) => key in branch)?.[key] ?? null;
    types.delete("null");
    const number = types.size > 0 && [...types].every((type) => type === "integer" || type === "number");
    const only = types.size === 1 ? [...types][0] : null;
    return {
      name,
      description: property.description ?? "",
      kind: choices.length > 0 ? "choice" : number ? "number" : only === "boolean" ? "yes or no" : only === "string" ? "text" : "json",
      choices,
      whole: only === "integer",
      least: first("minimum"),
      most: first("maximum"),
      required: required.includes(name),
      default: property.default,
    };
  });
}

/** A value as the text of its field; none for one that is not set. */
export function textOf(field: SettingField, value: unknown): string {
  if (value === undefined || value === null) return "";
  if (field.kind === "json") return jsonText(value, 2);
  return String(value);
}

/** The changes that the texts mean.  Throws an error that names the field whose text cannot be read. */
export function changesOf(
  fields: readonly SettingField[],
  settings: Readonly<Record<string, unknown>>,
  texts: Readonly<Record<string, string>>,
): SettingChange[] {
  return fields.flatMap((field) => {
    const { name } = field;
    const before = settings[name] ?? null;
    const text = texts[name];
    if (text === undefined || text === textOf(field, before)) return [];
    const value = text.trim() === "" ? undefined : valueOf(field, text);
    const after = value ?? field.default ?? null;
    if (jsonText(after) === jsonText(before)) return [];
    return [{ name, before, after, sent: jsonText(after) === jsonText(field.default ?? null) ? null : value }];
  });
}

function valueOf(field: SettingField, text: string): unknown {
  switch (field.kind) {
    case "number": {
      const value = wholeNumber(text.trim()) ?? Number(text);
      if (typeof value === "number" && (!Number.isFinite(value) || (field.whole && !Number.isInteger(value)))) {
        throw new Error(`${field.name}: expected a ${field.whole ? "whole " : ""}number.`);
      }
      return value;
    }
    case "yes or no":
      return text === "true";
    case "json":
      try {
        return parseJson(text);
      } catch {
        throw new Error(`${field.name}: expected JSON.`);
      }
    default:
      return text;
  }
}
