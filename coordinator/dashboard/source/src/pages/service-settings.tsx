import { useState } from "preact/hooks";
import { Empty, Failure, Loading } from "../components";
import { knownRows, useRows } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { jsonText } from "../exact_json";
import { plural } from "../format";
import { type SettingField, settingFields, textOf } from "../settings";
import { ChangeTable, readChanges, SettingRow, SettingValue } from "../settings_form";
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
              shownState: jsonText(changes),
            }}
          />
        )}
      </div>
    </form>
  );
}
