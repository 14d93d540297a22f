// What stands around every page: navigation, the state of the connection, freeze, theme, token, help.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useCell } from "./cell";
import { useApp } from "./context";
import { HelpDialog, TokenDialog, TokenForm } from "./dialog";
import { Empty } from "./parts";
import type { Theme } from "./preferences";
import { href } from "./route";
import { timeOfDay } from "./words";

export const PLACES: readonly (readonly [path: string, title: string, key: string])[] = [
  ["", "Overview", "o"],
  ["services", "Services", "s"],
  ["clients", "Clients", "c"],
  ["buckets", "Buckets", "b"],
  ["nodes", "Nodes", "n"],
  ["events", "Events", "e"],
  ["leaderboard", "Leaderboard", "l"],
];

const KEYS: readonly (readonly [string, string])[] = [
  ...PLACES.map(([, title, key]) => [`g ${key}`, title] as const),
  ["/", "Search in this page"],
  ["f", "Freeze, or go on"],
  ["t", "Light, dark, or as the system"],
  ["?", "This help"],
  ["Esc", "Close a dialog"],
];

const THEMES: readonly Theme[] = ["system", "light", "dark"];

export function Shell({ children }: { children: ComponentChildren }) {
  const { live, router } = useApp();
  const [open, setOpen] = useState<"help" | "token" | null>(null);
  const link = useCell(live.link);
  useShortcuts(() => setOpen("help"));
  const { path } = useCell(router.route);
  const close = (): void => setOpen(null);
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={href([])} aria-label="Coordinator, overview">
          <img src="assets/icon.svg" alt="" width="28" height="28" />
          <span>Coordinator</span>
        </a>
        <nav class="main" aria-label="Pages">
          {PLACES.map(([place, title]) => (
            <a key={place} href={href(place ? [place] : [])} aria-current={(path[0] ?? "") === place ? "page" : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <div class="tools">
          <Connection />
          <FreezeButton />
          <ThemeButton />
          <button type="button" onClick={() => setOpen("token")}>
            Token
          </button>
          <button type="button" aria-label="Keyboard help" onClick={() => setOpen("help")}>
            ?
          </button>
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {link.phase === "refused" ? <Refused message={link.error.message} /> : children}
      </main>
      <Messages />
      {open === "help" && <HelpDialog keys={KEYS} onClose={close} />}
      {open === "token" && <TokenDialog onClose={close} />}
    </>
  );
}

function skip(event: Event): void {
  event.preventDefault(); // the address belongs to the router
  document.getElementById("content")?.focus();
}

function Refused({ message }: { message: string }) {
  const { live } = useApp();
  return (
    <section class="card narrow">
      <Empty title="The server does not let this page look.">{message}</Empty>
      <TokenForm />
      <div class="buttons">
        <button type="button" onClick={() => live.retry()}>
          Try again
        </button>
      </div>
    </section>
  );
}

/** Whether what is shown is live; said aloud only when that changes. */
function Connection() {
  const { live } = useApp();
  const link = useCell(live.link);
  const server = useCell(live.server);
  const left = useCountdown(link.phase === "waiting" ? link.until : null);
  const words = {
    connecting: server === null ? "Connecting …" : "Reconnecting",
    live: "Live",
    waiting: "Reconnecting",
    refused: "Not allowed",
    asleep: "Paused",
  }[link.phase];
  return (
    <div class={`connection ${link.phase}`}>
      <span class="dot" aria-hidden="true" />
      <span role="status" title={server === null ? undefined : `node ${server.node}, version ${server.version}`}>
        {words}
      </span>
      {link.phase === "waiting" && (
        <>
          <span class="muted" aria-hidden="true">
            in {left} s
          </span>
          <button type="button" onClick={() => live.retry()}>
            Now
          </button>
        </>
      )}
    </div>
  );
}

function useCountdown(until: number | null): number {
  const [, redraw] = useState({});
  useEffect(() => {
    if (until === null) return;
    const timer = setInterval(() => redraw({}), 250);
    return () => clearInterval(timer);
  }, [until]);
  return until === null ? 0 : Math.max(0, Math.ceil((until - Date.now()) / 1000));
}

function FreezeButton() {
  const { live } = useApp();
  const frozen = useCell(live.frozen);
  return (
    <button
      type="button"
      class={frozen === null ? "" : "frozen"}
      aria-pressed={frozen !== null}
      title={frozen === null ? "Hold what is shown" : `Held since ${timeOfDay(frozen)}`}
      onClick={() => live.freeze(frozen === null)}
    >
      {frozen === null ? "Freeze" : `Frozen ${timeOfDay(frozen)}`}
    </button>
  );
}

function ThemeButton() {
  const { preferences } = useApp();
  const theme = useCell(preferences.theme);
  return (
    <button type="button" title="Light, dark, or as the system" onClick={() => nextTheme(preferences)}>
      <span aria-hidden="true">◐ </span>
      <span class="unseen">Theme: </span>
      <span class="theme-name">{{ system: "Auto", light: "Light", dark: "Dark" }[theme]}</span>
    </button>
  );
}

function nextTheme(preferences: { theme: { value: Theme }; setTheme(theme: Theme): void }): void {
  const next = (THEMES.indexOf(preferences.theme.value) + 1) % THEMES.length;
  preferences.setTheme(THEMES[next] ?? "system");
}

function Messages() {
  const { toasts } = useApp();
  const shown = useCell(toasts.shown);
  return (
    <div class="toasts" role="status">
      {shown.map((toast) => (
        <p key={toast.id}>
          {toast.text}
        </p>
      ))}
    </div>
  );
}

/** Single keys, for whoever has not turned them off; never while something is typed. */
function useShortcuts(help: () => void): void {
  const { live, preferences, router } = useApp();
  const goes = useRef(false);
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (!preferences.shortcuts.value || event.ctrlKey || event.metaKey || event.altKey) return;
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea, dialog") !== null) return;
      const going = goes.current;
      goes.current = event.key === "g";
      const place = going ? PLACES.find(([, , key]) => key === event.key) : undefined;
      if (place !== undefined) router.go(place[0] ? [place[0]] : []);
      else if (event.key === "?") help();
      else if (event.key === "f") live.freeze(live.frozen.value === null);
      else if (event.key === "t") nextTheme(preferences);
      else if (event.key === "/") document.querySelector<HTMLElement>("[data-search]")?.focus();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [live, preferences, router]);
}
