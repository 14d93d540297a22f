// Values in JSON, of whatever size.
import { jsonText } from "./exact_json";

/** Characters of a value that stand in its line; the rest is shown on demand. */
const SHORT_CHARACTERS = 160;

export function JsonValue({ value }: { value: unknown }) {
  const text = jsonText(value) ?? "";
  if (text.length <= SHORT_CHARACTERS) return <code class="value">{text}</code>;
  return (
    <details class="long-value">
      <summary>
        <code class="value">{text.slice(0, SHORT_CHARACTERS)} …</code>
      </summary>
      <pre>{jsonText(value, 2)}</pre>
    </details>
  );
}

/** A value as people read it: text without its quotes, an object or list as JSON. */
export function PlainValue({ value }: { value: unknown }) {
  if (typeof value === "string" && value.length <= SHORT_CHARACTERS) return <span class="plain-value">{value}</span>;
  return <JsonValue value={value} />;
}
