import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useApp } from "./context";
import { useObservable } from "./observable";
import { checkToken, operate, type Operation } from "./operation";
import type { Role } from "./wire";

/** A modal `<dialog>`: the browser keeps the focus inside, and Escape closes it. */
export function Dialog(props: { title: string; onClose(): void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);

  useEffect(() => {
    const focusedBefore = document.activeElement;
    dialog.current?.showModal();
    return () => {
      if (focusedBefore instanceof HTMLElement && focusedBefore.isConnected) focusedBefore.focus();
    };
  }, []);

  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" onClose={props.onClose}>
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

/** An operation as a button offers it. */
export interface Action {
  /** The text on the button. */
  label: string;
  operation: Operation;
  /** The effect, for the question that is asked before it is sent. */
  effect: string;
  /** What stands under the effect, such as a table of changes. */
  details?: ComponentChildren;
  /** Say what was done, from the server's answer. */
  doneText(answer: Record<string, unknown>): string;
  requiredRole: Exclude<Role, "viewer">;
  /** The state of the thing as it is shown: once the operation is done, the button rests until this changes. */
  shownState: string;
  danger?: boolean;
  /** The reader may give a reason. */
  asksReason?: boolean;
}

/** Tell whether the reader's token has the rights of a role; an admin has those of every role. */
export function useHasRole(requiredRole: Action["requiredRole"]): boolean {
  const role = useObservable(useApp().connection.role);
  return role === "admin" || role === requiredRole;
}

/** Milliseconds after which a button is offered again although nothing has changed. */
const REST_MS = 5_000;

/** A button that only readers with the required role see; it asks before it sends the operation. */
export function OperationButton({ action, onDone }: { action: Action; onDone?: () => void }) {
  const [asking, setAsking] = useState(false);
  const [resting, setResting] = useResting(action.shownState);
  if (!useHasRole(action.requiredRole)) return null;

  const finish = (): void => {
    setResting(true);
    onDone?.();
  };
  return (
    <>
      <button
        type="button"
        class={action.danger ? "danger" : ""}
        aria-disabled={resting}
        onClick={() => setAsking(!resting)}
      >
        {resting ? "Done" : action.label}
      </button>
      {asking && <ConfirmDialog action={action} onClose={() => setAsking(false)} onDone={finish} />}
    </>
  );
}

/** A state that ends when what is shown has changed, or after a while. */
function useResting(shownState: string): [resting: boolean, setResting: (resting: boolean) => void] {
  const [restingIn, setRestingIn] = useState<string | null>(null);

  useEffect(() => {
    if (restingIn === null) return;
    const timer = setTimeout(() => setRestingIn(null), REST_MS);
    return () => clearTimeout(timer);
  }, [restingIn]);

  return [restingIn === shownState, (resting) => setRestingIn(resting ? shownState : null)];
}

function ConfirmDialog({ action, onClose, onDone }: { action: Action; onClose(): void; onDone(): void }) {
  const { preferences, toasts } = useApp();
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | null>(null);
  const [reason, setReason] = useState("");

  const send = async (): Promise<void> => {
    setBusy(true);
    setRefusal(null);
    const fields = { ...action.operation.fields, ...(reason.trim() ? { reason: reason.trim() } : {}) };
    try {
      const answer = await operate(preferences.token.value ?? "", { ...action.operation, fields });
      toasts.add(action.doneText(answer));
      onDone();
      onClose();
    } catch (failure) {
      setRefusal(failure instanceof Error ? failure.message : String(failure));
      setBusy(false);
    }
  };

  return (
    <Dialog title={`${action.label}?`} onClose={onClose}>
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <p>{action.effect}</p>
        {action.details}
        {action.asksReason && (
          <label class="field">
            <span>Reason (the client and operators are told)</span>
            <input maxLength={1024} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
          </label>
        )}
        {refusal !== null && (
          <p class="refusal" role="alert">
            {refusal}
          </p>
        )}
        <div class="buttons">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class={action.danger ? "danger primary" : "primary"} disabled={busy}>
            {busy ? "Working …" : action.label}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** The list of shortcuts, and the switch that turns them off. */
export function HelpDialog({ keys, onClose }: { keys: readonly (readonly [string, string])[]; onClose(): void }) {
  const { preferences } = useApp();
  const shortcutsOn = useObservable(preferences.shortcuts);

  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl class="keys">
        {keys.map(([key, meaning]) => (
          <div key={key}>
            <dt>
              {key.split(" ").map((part) => (
                <kbd key={part}>{part}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <label class="switch">
        <input
          type="checkbox"
          checked={shortcutsOn}
          onChange={(event) => preferences.setShortcuts(event.currentTarget.checked)}
        />
        Shortcuts are on
      </label>
      <div class="buttons">
        <a class="aside" href="assets/licences.txt">
          Licences
        </a>
        <button type="button" class="primary" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

/** Tells the reader's rights, asks for a token and forgets it. */
export function AccountDialog({ onClose }: { onClose(): void }) {
  const { connection, preferences } = useApp();
  const role = useObservable(connection.role);
  const { phase } = useObservable(connection.state);
  const hasToken = useObservable(preferences.token) !== null;

  return (
    <Dialog title="Account" onClose={onClose}>
      <p class="muted">
        With an operator's token you can pause services, release buckets and deactivate clients from here, with an
        admin's also drain nodes. It is kept in this tab until the tab is closed.
      </p>
      {phase === "live" && (
        <p>
          This tab has the rights of: <b>{role}</b>
          {hasToken ? "" : ", without a token"}.
        </p>
      )}
      <TokenForm onDone={onClose} />
    </Dialog>
  );
}

/** The field for a token; it also stands on the page where the server wants a token of every viewer. */
export function TokenForm({ onDone }: { onDone?: () => void }) {
  const { connection, preferences } = useApp();
  const hasToken = useObservable(preferences.token) !== null;
  const [text, setText] = useState("");
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | null>(null);

  const applyToken = (token: string | null): void => {
    preferences.setToken(token);
    connection.setToken(token);
    onDone?.();
  };

  // It is tried first: a wrong one must not close a page that is open.
  const tryToken = async (token: string): Promise<void> => {
    setBusy(true);
    setRefusal(null);
    try {
      await checkToken(token);
      applyToken(token);
    } catch (failure) {
      setRefusal(failure instanceof Error ? failure.message : String(failure));
    } finally {
      setBusy(false);
    }
  };

  return (
    <form
      class="token-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim() && !busy) void tryToken(text.trim());
      }}
    >
      <label class="field">
        <span>Token</span>
        <input
          type="password"
          autocomplete="off"
          maxLength={256}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      {refusal !== null && (
        <p class="refusal" role="alert">
          {refusal}
        </p>
      )}
      <div class="buttons">
        {hasToken && (
          <button type="button" onClick={() => applyToken(null)}>
            Forget the token
          </button>
        )}
        {onDone !== undefined && (
          <button type="button" onClick={onDone}>
            Cancel
          </button>
        )}
        <button type="submit" class="primary">
          Use this token
        </button>
      </div>
    </form>
  );
}
