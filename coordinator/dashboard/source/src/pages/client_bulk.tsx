// What an operator does with many clients at once: those that are chosen, or all that match the filter.
import { useEffect, useRef, useState } from "preact/hooks";
import { type BulkProgress, forEachName } from "../bulk";
import { useApp } from "../context";
import type { StatsConnection } from "../connection";
import { Dialog, useHasRole } from "../dialog";
import { count, plural } from "../format";
import { inAdminSession } from "../operation";
import type { ClientRow, Filter } from "../wire";

/** The chosen clients: those of `ids`; or, with `all`, whoever matches the filter, on whatever page, but for `ids`. */
export interface Selection {
  all: boolean;
  ids: ReadonlySet<string>;
}

export const NO_SELECTION: Selection = { all: false, ids: new Set() };

/** The selection with one client more or less. */
export function toggled({ all, ids }: Selection, id: string): Selection {
  const changed = new Set(ids);
  if (!changed.delete(id)) changed.add(id);
  return { all, ids: changed };
}

export function isChosen({ all, ids }: Selection, id: string): boolean {
  return ids.has(id) !== all;
}

/** What the reader has written into the dialog. */
interface Answers {
  text: string;
  level: string;
  requeue: boolean;
}

interface BulkAction {
  label: string;
  effect: string;
  /** What was done, after the number of clients. */
  done: string;
  danger: boolean;
  request(client: string, answers: Answers): [type: string, fields: object];
}

const ACTIONS = {
  deactivate: {
    label: "Deactivate",
    effect: "They lose what they hold and cannot connect until they are activated again. Their results stay.",
    done: "deactivated",
    danger: true,
    request: (client_id, { text }) => ["client.deactivate", { client_id, ...(text ? { reason: text } : {}) }],
  },
  message: {
    label: "Send a message",
    effect: "Each is told it now, or when it connects next, until the message is withdrawn.",
    done: "told",
    danger: false,
    request: (client_id, { text, level }) => ["notice.send", { client_id, text, level }],
  },
  invalidate: {
    label: "Take results back",
    effect: "All results that they have given so far count no more. This can be undone: each taking back has a number.",
    done: "without results now",
    danger: true,
    request: (client_id, { requeue }) => ["result.invalidate", { client_id, dry_run: false, requeue }],
  },
} as const satisfies Record<string, BulkAction>;

type ActionName = keyof typeof ACTIONS;

/** Milliseconds that taking back the results of one client may last. */
const REQUEST_TIMEOUT_MS = 120_000;
const IDS_PER_PAGE = 1000;

interface BulkBarProps {
  selection: Selection;
  onSelect(selection: Selection): void;
  filter: Filter;
  /** How many clients match the filter; null while that is not known. */
  total: number | null;
  onDone(): void;
}

/** The number of chosen clients, and what can be done with them. */
export function BulkBar({ selection, onSelect, filter, total, onDone }: BulkBarProps) {
  const [asking, setAsking] = useState<ActionName | null>(null);
  if (!useHasRole("operator") || total === null || total === 0) return null;

  const chosen = selection.all ? total - selection.ids.size : selection.ids.size;
  return (
    <div class="bulk" role="group" aria-label="With the chosen clients">
      <b role="status">{count(chosen)} chosen</b>
      <button type="button" aria-disabled={chosen === total} onClick={() => onSelect({ all: true, ids: new Set() })}>
        Choose all {count(total)} that match
      </button>
      {chosen > 0 && (
        <>
          <button type="button" onClick={() => onSelect(NO_SELECTION)}>
            Choose none
          </button>
          {(Object.keys(ACTIONS) as ActionName[]).map((name) => (
            <button
              key={name}
              type="button"
              class={ACTIONS[name].danger ? "danger" : ""}
              onClick={() => setAsking(name)}
            >
              {ACTIONS[name].label} …
            </button>
          ))}
        </>
      )}
      {asking !== null && (
        <BulkDialog
          name={asking}
          selection={selection}
          filter={filter}
          onClose={() => setAsking(null)}
          onDone={() => {
            onSelect(NO_SELECTION);
            onDone();
          }}
        />
      )}
    </div>
  );
}

interface BulkDialogProps {
  name: ActionName;
  selection: Selection;
  filter: Filter;
  onClose(): void;
  onDone(): void;
}

/** Finds out whom it is about, asks for the number of them, and does it, with its progress. */
function BulkDialog({ name, selection, filter, onClose, onDone }: BulkDialogProps) {
  const action: BulkAction = ACTIONS[name];
  const { connection, preferences, toasts } = useApp();
  const [clients, setClients] = useState<string[] | null>(null);
  const [progress, setProgress] = useState<BulkProgress | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const stopped = useRef(false);

  useEffect(() => {
    chosenClients(connection, selection, filter).then(setClients, (failure: unknown) => setFault(String(failure)));
    return () => {
      stopped.current = true;
    };
  }, []);

  const perform = async (answers: Answers): Promise<void> => {
    if (clients === null) return;
    setProgress({ done: 0, failed: 0, failures: [] });
    try {
      const result = await inAdminSession(preferences.token.value ?? "", (session) =>
        forEachName(
          clients,
          (client) => {
            const [type, fields] = action.request(client, answers);
            return session.request(type, fields, REQUEST_TIMEOUT_MS);
          },
          { onProgress: setProgress, isStopped: () => stopped.current },
        ),
      );
      toasts.add(`${plural(result.done, "client")} ${action.done}.`);
      onDone();
      if (result.failed === 0) onClose();
    } catch (failure) {
      setFault(failure instanceof Error ? failure.message : String(failure));
    }
  };

  const title = clients === null ? `${action.label}?` : `${action.label}: ${plural(clients.length, "client")}?`;
  return (
    <Dialog title={title} onClose={onClose}>
      {fault !== null && (
        <p class="refusal" role="alert">
          {fault}
        </p>
      )}
      {progress !== null && clients !== null ? (
        <BulkRun progress={progress} total={clients.length} onClose={onClose} />
      ) : clients === null ? (
        <p role="status">Finding out whom it is about …</p>
      ) : (
        <BulkForm name={name} clients={clients} onClose={onClose} onSubmit={(answers) => void perform(answers)} />
      )}
    </Dialog>
  );
}

/** The ids of the chosen clients, as they are now. */
async function chosenClients(connection: StatsConnection, selection: Selection, filter: Filter): Promise<string[]> {
  if (!selection.all) return [...selection.ids];

  const found: string[] = [];
  let after: string | null = null;
  do {
    const page = await connection.readPage("clients", { ...filter, sort: "client_id" }, after, IDS_PER_PAGE);
    found.push(...(page.rows as ClientRow[]).map((row) => row.client_id).filter((id) => !selection.ids.has(id)));
    after = page.next;
  } while (after !== null);
  return found;
}

interface BulkFormProps {
  name: ActionName;
  clients: readonly string[];
  onClose(): void;
  onSubmit(answers: Answers): void;
}

function BulkForm({ name, clients, onClose, onSubmit }: BulkFormProps) {
  const action = ACTIONS[name];
  const [answers, setAnswers] = useState<Answers>({ text: "", level: "info", requeue: true });
  const [typedCount, setTypedCount] = useState("");
  const change = (changed: Partial<Answers>): void => setAnswers((before) => ({ ...before, ...changed }));
  const confirmed = clients.length === 1 || typedCount.trim() === String(clients.length);
  const ready = confirmed && clients.length > 0 && (name !== "message" || answers.text.trim() !== "");

  return (
    <form
      method="dialog"
      onSubmit={(event) => {
        event.preventDefault();
        if (ready) onSubmit({ ...answers, text: answers.text.trim() });
      }}
    >
      <p>{action.effect}</p>
      {name === "deactivate" && (
        <label class="field">
          <span>Reason (they and operators are told)</span>
          <input maxLength={1024} value={answers.text} onInput={(event) => change({ text: event.currentTarget.value })} />
        </label>
      )}
      {name === "message" && (
        <>
          <label class="field">
            <span>Message</span>
            <textarea
              rows={3}
              maxLength={2000}
              value={answers.text}
              onInput={(event) => change({ text: event.currentTarget.value })}
            />
          </label>
          <label class="field">
            <span>Level</span>
            <select value={answers.level} onChange={(event) => change({ level: event.currentTarget.value })}>
              {["info", "warning", "error"].map((level) => (
                <option key={level}>{level}</option>
              ))}
            </select>
          </label>
        </>
      )}
      {name === "invalidate" && (
        <>
          <ResultCount clients={clients} />
          <label class="switch">
            <input
              type="checkbox"
              checked={answers.requeue}
              onChange={(event) => change({ requeue: event.currentTarget.checked })}
            />
            Have their items checked again
          </label>
        </>
      )}
      {clients.length > 1 && (
        <label class="field">
          <span>To confirm, write how many clients they are: {clients.length}</span>
          <input
            inputMode="numeric"
            autocomplete="off"
            value={typedCount}
            onInput={(event) => setTypedCount(event.currentTarget.value)}
          />
        </label>
      )}
      <div class="buttons">
        <button type="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" class={action.danger ? "danger primary" : "primary"} disabled={!ready}>
          {action.label}
        </button>
      </div>
    </form>
  );
}

/** How many results would be taken back; they are counted while the reader reads. */
function ResultCount({ clients }: { clients: readonly string[] }) {
  const { preferences } = useApp();
  const [counted, setCounted] = useState({ results: 0, clients: 0 });
  const [fault, setFault] = useState<string | null>(null);

  useEffect(() => {
    let stopped = false;
    let results = 0;
    const request = { dry_run: true, requeue: false };
    inAdminSession(preferences.token.value ?? "", (session) =>
      forEachName(
        clients,
        async (client_id) => {
          const answer = await session.request("result.invalidate", { ...request, client_id }, REQUEST_TIMEOUT_MS);
          results += Number(answer.count);
        },
        { onProgress: ({ done }) => !stopped && setCounted({ results, clients: done }), isStopped: () => stopped },
      ),
    ).catch((failure: unknown) => !stopped && setFault(failure instanceof Error ? failure.message : String(failure)));
    return () => {
      stopped = true;
    };
  }, []);

  if (fault !== null) return <p class="refusal">{fault}</p>;
  const left = clients.length - counted.clients;
  return (
    <p role="status">
      These are <b>{plural(counted.results, "result")}</b>
      {left > 0 ? `, of ${plural(left, "client")} they are still being counted` : ""}.
    </p>
  );
}

function BulkRun({ progress, total, onClose }: { progress: BulkProgress; total: number; onClose(): void }) {
  const past = progress.done + progress.failed;
  return (
    <>
      <p role="status">
        {count(past)} of {count(total)} done{progress.failed > 0 ? `, ${count(progress.failed)} refused` : ""}.
      </p>
      <progress max={total} value={past} aria-label="Done" />
      {progress.failures.map((failure) => (
        <p key={failure} class="refusal">
          {failure}
        </p>
      ))}
      <div class="buttons">
        <button type="button" onClick={onClose}>
          {past < total ? "Stop here" : "Close"}
        </button>
      </div>
    </>
  );
}
