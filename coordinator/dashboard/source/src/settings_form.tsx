// The form of a service's settings, and what a change of it means.
import { PlainValue } from "./json";
import { changesOf, type SettingChange, type SettingField, textOf } from "./settings";

export function SettingValue({ value }: { value: unknown }) {
  if (value === undefined || value === null) return <span class="muted">none</span>;
  return <PlainValue value={value} />;
}

export function readChanges(
  fields: readonly SettingField[],
  settings: Record<string, unknown>,
  texts: Record<string, string>,
): { changes: SettingChange[]; refusal: string | null } {
  try {
    return { changes: changesOf(fields, settings, texts), refusal: null };
  } catch (failure) {
    return { changes: [], refusal: failure instanceof Error ? failure.message : String(failure) };
  }
}

interface SettingRowProps {
  field: SettingField;
  text: string;
  changed: boolean;
  onText(text: string): void;
}

export function SettingRow({ field, text, changed, onText }: SettingRowProps) {
  const id = `setting-${field.name}`;
  return (
    <div class={`setting ${changed ? "changed" : ""}`}>
      <label for={id}>
        <code>{field.name}</code>
        {changed && <span class="badge warn">changed</span>}
      </label>
      <SettingInput id={id} field={field} text={text} onText={onText} />
      <span class="muted" id={`${id}-about`}>
        {field.description} {defaultText(field)}
      </span>
    </div>
  );
}

function defaultText(field: SettingField): string {
  if (field.required) return "It needs one.";
  if (field.default === undefined) return "";
  if (field.default === null) return "None unless set.";
  if (field.kind === "yes or no") return `Default: ${field.default === true ? "yes" : "no"}.`;
  return `Default: ${textOf(field, field.default) || "none"}.`;
}

function SettingInput({ id, field, text, onText }: Omit<SettingRowProps, "changed"> & { id: string }) {
  const shared = { id, "aria-describedby": `${id}-about` };
  const choices = field.kind === "yes or no" ? ["true", "false"] : field.kind === "choice" ? field.choices : null;
  if (choices !== null) {
    return (
      <select {...shared} value={text} onChange={(event) => onText(event.currentTarget.value)}>
        {choices.map((choice) => (
          <option key={choice} value={choice}>
            {field.kind === "yes or no" ? (choice === "true" ? "yes" : "no") : choice}
          </option>
        ))}
      </select>
    );
  }
  if (field.kind === "json") {
    return (
      <textarea
        {...shared}
        rows={Math.max(field.required ? 6 : 2, Math.min(12, text.split("\n").length + 1))}
        spellcheck={false}
        value={text}
        onInput={(event) => onText(event.currentTarget.value)}
      />
    );
  }
  return (
    <input
      {...shared}
      type="text"
      inputMode={field.kind === "number" ? "decimal" : "text"}
      autocomplete="off"
      value={text}
      onInput={(event) => onText(event.currentTarget.value)}
    />
  );
}

interface ChangeTableProps {
  changes: readonly SettingChange[];
  /** Heads of the columns of the values: before the change, and after it. */
  titles?: readonly [before: string, after: string];
}

export function ChangeTable({ changes, titles = ["Now", "Then"] }: ChangeTableProps) {
  return (
    <table class="changes">
      <thead>
        <tr>
          <th scope="col">Setting</th>
          {titles.map((title) => (
            <th key={title} scope="col">
              {title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {changes.map(({ name, before, after, sent }) => (
          <tr key={name}>
            <th scope="row">
              <code>{name}</code>
            </th>
            <td>
              <SettingValue value={before} />
            </td>
            <td>
              <SettingValue value={after} /> {sent === null && <span class="muted">(default)</span>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
