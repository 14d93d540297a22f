// A new service: of a plugin that the node has, with settings by the plugin's schema.
import { useState } from "preact/hooks";
import { useAdminRows } from "../admin_rows";
import { Failure, Loading, NeedsRole } from "../components";
import { useApp } from "../context";
import { OperationButton, useHasRole } from "../dialog";
import { plural } from "../format";
import { PageHead } from "../page_head";
import { type SettingChange, type SettingField, settingFields, textOf } from "../settings";
import { ChangeTable, readChanges, SettingRow } from "../settings_form";

/** A plugin, as `service.plugins` answers it; `settings` are the names of its own ones. */
interface ListedPlugin {
  plugin: string;
  title: string;
  settings: string[];
  services: string[];
  settings_schema: unknown;
}

const MAX_PLUGINS = 1000;
const SERVICE_NAME = /^[A-Za-z0-9_.-]{1,64}$/;
/** The setting of every service that a new one is asked for first: which items it takes. */
const ENROL = "enrol";
const PLUGIN_HINT = "One that was installed since the node started is found when this page is opened.";

export function AddServicePage() {
  const admin = useHasRole("admin");
  return (
    <>
      <PageHead
        back={["services", "Services"]}
        title="Add a service"
        lead="A kind of check: a plugin, and settings of its own. Clients are told of it at once."
      />
      {admin ? <PluginChoice /> : <NeedsRole role="admin" />}
    </>
  );
}

function PluginChoice() {
  const loaded = useAdminRows<ListedPlugin>("service.plugins", { schemas: true, limit: MAX_PLUGINS });
  const [chosen, setChosen] = useState("");
  if (loaded.rows === null) {
    return loaded.error === null ? <Loading rows={6} /> : <Failure text={loaded.error} reload={loaded.reload} />;
  }

  const plugin = loaded.rows.find((row) => row.plugin === chosen);
  return (
    <section class="card" aria-label="New service">
      <div class="settings">
        <div class="setting">
          <label for="plugin">Plugin</label>
          <select
            id="plugin"
            aria-describedby="plugin-about"
            value={chosen}
            onChange={(event) => setChosen(event.currentTarget.value)}
          >
            <option value="">choose one</option>
            {loaded.rows.map((row) => (
              <option key={row.plugin} value={row.plugin}>
                {row.plugin}: {row.title}
              </option>
            ))}
          </select>
          <span class="muted" id="plugin-about">
            {plugin === undefined ? PLUGIN_HINT : usedBy(plugin)}
          </span>
        </div>
        {plugin !== undefined && <ServiceForm key={plugin.plugin} plugin={plugin} />}
      </div>
    </section>
  );
}

/** Names of services that are shown; the others are counted. */
const SHOWN_SERVICES = 5;

function usedBy({ services }: ListedPlugin): string {
  if (services.length === 0) return "No service is made of it yet.";
  const more = services.length > SHOWN_SERVICES ? ", …" : "";
  return `${plural(services.length, "service")} of it: ${services.slice(0, SHOWN_SERVICES).join(", ")}${more}.`;
}

function ServiceForm({ plugin }: { plugin: ListedPlugin }) {
  const [name, setName] = useState("");
  const [title, setTitle] = useState("");
  const [texts, setTexts] = useState<Record<string, string>>({});

  const fields = settingFields(plugin.settings_schema);
  const { changes, refusal } = readChanges(fields, defaultsOf(fields), texts);
  const isChanged = (field: SettingField): boolean => changes.some((change) => change.name === field.name);
  const first = fields.filter((field) => plugin.settings.includes(field.name) || field.name === ENROL);
  const missing = fields.filter((field) => field.required && !isChanged(field)).map((field) => field.name);
  if (!SERVICE_NAME.test(name)) missing.unshift("a name of letters, digits, dots, dashes and underscores");

  const rowOf = (field: SettingField) => (
    <SettingRow
      key={field.name}
      field={field}
      text={texts[field.name] ?? textOf(field, field.default)}
      changed={isChanged(field)}
      onText={(text) => setTexts({ ...texts, [field.name]: text })}
    />
  );
  return (
    <form class="settings" onSubmit={(event) => event.preventDefault()}>
      <TextRow id="service-name" label="Name" text={name} onText={setName} hint="As programs say it. It stays for good." />
      <TextRow id="service-title" label="Title" text={title} onText={setTitle} hint={`For people. Default: ${plugin.title}.`} />
      {first.map(rowOf)}
      <details>
        <summary>{plural(fields.length - first.length, "more setting")}, which can be changed later too</summary>
        <div class="settings">{fields.filter((field) => !first.includes(field)).map(rowOf)}</div>
      </details>
      {refusal !== null && (
        <p class="refusal" role="alert">
          {refusal}
        </p>
      )}
      <div class="buttons">
        <span class="aside muted" role="status">
          {missing.length > 0 ? `Still needed: ${missing.join("; ")}.` : "You see what is added before it is."}
        </span>
        {missing.length === 0 && refusal === null && (
          <AddButton plugin={plugin} name={name} title={title.trim()} changes={changes} />
        )}
      </div>
    </form>
  );
}

/** The settings of a service for which nothing was chosen. */
function defaultsOf(fields: readonly SettingField[]): Record<string, unknown> {
  return Object.fromEntries(fields.map((field) => [field.name, field.default]));
}

function TextRow(props: { id: string; label: string; text: string; hint: string; onText(text: string): void }) {
  return (
    <div class="setting">
      <label for={props.id}>{props.label}</label>
      <input
        id={props.id}
        aria-describedby={`${props.id}-about`}
        autocomplete="off"
        spellcheck={false}
        maxLength={1024}
        value={props.text}
        onInput={(event) => props.onText(event.currentTarget.value)}
      />
      <span class="muted" id={`${props.id}-about`}>
        {props.hint}
      </span>
    </div>
  );
}

interface AddButtonProps {
  plugin: ListedPlugin;
  name: string;
  title: string;
  changes: readonly SettingChange[];
}

function AddButton({ plugin: { plugin, title: usualTitle }, name, title, changes }: AddButtonProps) {
  const { router } = useApp();
  const named = changes.some((change) => change.name === ENROL && change.after === "named");
  const settings = Object.fromEntries(changes.map((change) => [change.name, change.after]));

  return (
    <OperationButton
      onDone={() => router.navigate(["services", name])}
      action={{
        label: "Add service",
        operation: { type: "service.add", fields: { service: name, plugin, settings, ...(title ? { title } : {}) } },
        effect: `${name} (${title || usualTitle}) begins at once. ${
          named
            ? "It has no items until some are named for it."
            : "All items of the catalogue come to wait in it, but for those that the plugin leaves out."
        }`,
        details: changes.length > 0 ? <ChangeTable changes={changes} titles={["Default", "Here"]} /> : <p>All its settings are the defaults.</p>,
        doneText: () => `${name} is there.`,
        requiredRole: "admin",
        shownState: name,
      }}
    />
  );
}
