// A text that is there to be taken elsewhere, with a button that copies it.
import { useApp } from "./context";

/** The text, whole, and the button; `what` names it where the page says that it is copied. */
export function CopyableText({ text, what }: { text: string; what: string }) {
  return (
    <div class="command">
      <code>{text}</code>
      <CopyButton text={text} what={what} />
    </div>
  );
}

export function CopyButton({ text, what, label = "Copy" }: { text: string; what: string; label?: string }) {
  const { toasts } = useApp();
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text); // of a page without TLS there is no clipboard, but on this machine
      toasts.add(`${what} is copied.`);
    } catch {
      toasts.add(`The browser does not let this page copy: please mark ${what.toLowerCase()} and copy it.`);
    }
  };
  return (
    <button type="button" onClick={() => void copy()}>
      {label}
    </button>
  );
}
