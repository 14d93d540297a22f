import { useState } from "preact/hooks";
import { Empty, Failure, Loading } from "../components";
import { knownRows, useRows } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { plural } from "../format";
import { PlainValue } from "../json";
import { changesOf, type SettingChange, type SettingField, settingFields, textOf } from "../settings";
import { type Column, TableView } from "../table";
import type { ServiceSchemas } from "../wire";

/** The settings of a service: a form for operators, a table for others. */
export function ServiceSettings({ service }: { service: string }) {
  const loaded = useRows<ServiceSchemas>({ table: "schemas", filter: { service }, limit: 1, refreshSeconds: 5 });
  const operator = useHasRole("operator");
  const row = loaded.rows?.[0];
  if (row === undefined) {
    return loaded.error === null ? <Loading rows={8} /> : <Failure text={loaded.error} reload={loaded.reload} />;
  }

  const fields = settingFields(row.settings_schema);
  return (
    <section class="card" aria-label="Settings">
      {operator ? (
        <SettingsForm service={service} fields={fields} settings={row.settings} onSaved={loaded.reload} />
      ) : (
        <SettingsTable fields={fields} settings={row.settings} />
      )}
    </section>
  );
}

interface SettingsProps {
  fields: readonly SettingField[];
  settings: Record<string, unknown>;
}

function SettingsTable({ fields, settings }: SettingsProps) {
  const columns: Column<SettingField>[] = [
    { title: "Setting", cell: (field) => <SettingName field={field} /> },
    { title: "Value", cell: ({ name }) => <SettingValue value={settings[name]} /> },
    { title: "Default", cell: (field) => <SettingValue value={field.default} /> },
  ];
  return (
    <TableView
      caption="Settings"
      columns={columns}
      loaded={knownRows([...fields])}
      rowKey={({ name }) => name}
      empty={<Empty title="It has no settings." />}
    />
  );
}

function SettingName({ field }: { field: SettingField }) {
  return (
    <span class="two-lines">
      <code>{field.name}</code>
      <span class="muted">{field.description}</span>
    </span>
  );
}

function SettingValue({ value }: { value: unknown }) {
  if (value === undefined || value === null) return <span class="muted">none</span>;
  return <PlainValue value={value} />;
}

function SettingsForm({ service, fields, settings, onSaved }: SettingsProps & { service: string; onSaved(): void }) {
  const [texts, setTexts] = useState<Record<string, string>>({});
  const { changes, refusal } = readChanges(fields, settings, texts);

  return (
    <form class="settings" onSubmit={(event) => event.preventDefault()}>
      {fields.map((field) => (
        <SettingRow
          key={field.name}
          field={field}
          text={texts[field.name] ?? textOf(field, settings[field.name])}
          changed={changes.some(({ name }) => name === field.name)}
          onText={(text) => setTexts({ ...texts, [field.name]: text })}
        />
      ))}
      {refusal !== null && (
        <p class="refusal" role="alert">
          {refusal}
        </p>
      )}
      <div class="buttons">
        <span class="aside muted" role="status">
          {changes.length === 0 ? "Nothing is changed." : `${plural(changes.length, "setting")} changed.`}
        </span>
        {Object.keys(texts).length > 0 && (
          <button type="button" onClick={() => setTexts({})}>
            Discard
          </button>
        )}
        {changes.length > 0 && refusal === null && (
          <OperationButton
            onDone={() => {
              setTexts({});
              onSaved();
            }}
            action={{
              label: "Save settings",
              operation: {
                type: "service.configure",
                fields: { service, settings: Object.fromEntries(changes.map(({ name, sent }) => [name, sent])) },
              },
              effect: `These settings of ${service} change now, while clients work:`,
              details: <ChangeTable changes={changes} />,
              doneText: () => `The settings of ${service} are saved.`,
              requiredRole: "operator",
              shownState: JSON.stringify(changes),
            }}
          />
        )}
      </div>
    </form>
  );
}

function readChanges(
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

function SettingRow({ field, text, changed, onText }: SettingRowProps) {
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
        rows={Math.min(12, text.split("\n").length + 1)}
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

function ChangeTable({ changes }: { changes: readonly SettingChange[] }) {
  return (
    <table class="changes">
      <thead>
        <tr>
          <th scope="col">Setting</th>
          <th scope="col">Now</th>
          <th scope="col">Then</th>
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
