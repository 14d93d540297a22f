import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import { useApp } from "./context";
import { type Operation, operate } from "./operation";
import type { Role } from "./wire";

/** A dialog of the browser's own: it keeps the focus inside, and Escape closes it. */
export function Dialog(props: { title: string; onClose(): void; children: ComponentChildren }) {
  const box = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    box.current?.showModal();
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog ref={box} aria-labelledby="dialog-title" onClose={props.onClose}>
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

export interface Act {
  /** The words on the button. */
  name: string;
  operation: Operation;
  /** What it does, for whoever is asked. */
  effect: string;
  /** What was done, from the server's answer. */
  done(answer: Record<string, unknown>): string;
  needs: Exclude<Role, "viewer">;
  danger?: boolean;
  /** A reason may be given with it. */
  reason?: boolean;
}

/** True for whoever has a token that lets him do it. */
export function useMay(needs: Act["needs"]): boolean {
  const role = useCell(useApp().live.role);
  return role === "admin" || role === needs;
}

/** A button for whoever may; it asks back once. */
export function ActButton({ act, onDone }: { act: Act; onDone?: () => void }) {
  const [asking, setAsking] = useState(false);
  if (!useMay(act.needs)) return null;
  return (
    <>
      <button type="button" class={act.danger ? "danger" : ""} onClick={() => setAsking(true)}>
        {act.name}
      </button>
      {asking && (
        <Confirm
          act={act}
          onClose={() => setAsking(false)}
          {...(onDone === undefined ? {} : { onDone })}
        />
      )}
    </>
  );
}

function Confirm({ act, onClose, onDone }: { act: Act; onClose(): void; onDone?: () => void }) {
  const { preferences, toasts } = useApp();
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<string | null>(null);
  const [reason, setReason] = useState("");
  const send = async (): Promise<void> => {
    setBusy(true);
    setRefusal(null);
    const fields = { ...act.operation.fields, ...(reason.trim() ? { reason: reason.trim() } : {}) };
    try {
      const answer = await operate(preferences.token.value ?? "", { ...act.operation, fields });
      toasts.add(act.done(answer));
      onDone?.();
      onClose();
    } catch (failure) {
      setRefusal(failure instanceof Error ? failure.message : String(failure));
      setBusy(false);
    }
  };
  return (
    <Dialog title={`${act.name}?`} onClose={onClose}>
      <form
        method="dialog"
        onSubmit={(event) => {
          event.preventDefault();
          void send();
        }}
      >
        <p>{act.effect}</p>
        {act.reason && (
          <label class="field">
            <span>Reason (noted in the activity log)</span>
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
          <button type="submit" class={act.danger ? "danger solid" : "solid"} disabled={busy}>
            {busy ? "Working …" : act.name}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** The shortcuts, and the switch that turns them off. */
export function HelpDialog({ keys, onClose }: { keys: readonly (readonly [string, string])[]; onClose(): void }) {
  const { preferences } = useApp();
  const on = useCell(preferences.shortcuts);
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
          checked={on}
          onChange={(event) => preferences.setShortcuts(event.currentTarget.checked)}
        />
        Shortcuts are on
      </label>
      <div class="buttons">
        <a class="aside" href="assets/licences.txt">
          Licences
        </a>
        <button type="button" class="solid" onClick={onClose}>
          Close
        </button>
      </div>
    </Dialog>
  );
}

/** Where a token is given or taken back. */
export function TokenDialog({ onClose }: { onClose(): void }) {
  const { live } = useApp();
  const role = useCell(live.role);
  const link = useCell(live.link);
  const { preferences } = useApp();
  const held = useCell(preferences.token) !== null;
  return (
    <Dialog title="Token" onClose={onClose}>
      <p class="muted">
        With an operator's token you can pause services, release buckets and deactivate clients from here, with an
        admin's also drain nodes. It is kept in this tab until the tab is closed.
      </p>
      {held && link.phase === "live" && (
        <p>
          This tab has the rights of: <b>{role}</b>.
        </p>
      )}
      <TokenForm onDone={onClose} />
    </Dialog>
  );
}

/** The field itself; it also stands where the server wants a token of every viewer. */
export function TokenForm({ onDone }: { onDone?: () => void }) {
  const { live, preferences } = useApp();
  const held = useCell(preferences.token) !== null;
  const [text, setText] = useState("");
  const use = (token: string | null): void => {
    preferences.setToken(token);
    live.use(token);
    onDone?.();
  };
  return (
    <form
      class="token-form"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) use(text.trim());
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
      <div class="buttons">
        {held && (
          <button type="button" onClick={() => use(null)}>
            Forget the token
          </button>
        )}
        {onDone !== undefined && (
          <button type="button" onClick={onDone}>
            Cancel
          </button>
        )}
        <button type="submit" class="solid">
          Use this token
        </button>
      </div>
    </form>
  );
}
