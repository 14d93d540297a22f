// The frame around every page: the menu, the state of the connection, freeze, theme, account, help.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Empty } from "./components";
import { useApp, useServerAway } from "./context";
import { AccountDialog, HelpDialog, TokenForm } from "./dialog";
import { timeOfDay } from "./format";
import { isPublic, Menu, MENU_PAGES, PublicMenu } from "./menu";
import { useObservable } from "./observable";
import type { Preferences, Theme } from "./preferences";
import { href } from "./route";
import { GlobalSearch } from "./search";

const SHORTCUT_HELP: readonly (readonly [string, string])[] = [
  ...MENU_PAGES.map(({ key, title }) => [`g ${key}`, title] as const),
  ["k", "Find an item, a client or a bucket"],
  ["/", "Search in this page"],
  ["f", "Freeze, or go on"],
  ["t", "Light, dark, or as the system"],
  ["?", "This help"],
  ["Esc", "Close a dialog"],
];

const THEMES: readonly Theme[] = ["system", "light", "dark"];

export function Shell({ children }: { children: ComponentChildren }) {
  const { connection, router } = useApp();
  const forPublic = isPublic(useObservable(router.route).path);
  const [openDialog, setOpenDialog] = useState<"help" | "account" | null>(null);
  const state = useObservable(connection.state);
  const away = useServerAway();
  const closeDialog = (): void => setOpenDialog(null);
  useShortcuts(() => setOpenDialog("help"));

  return (
    <>
      <a class="skip" href="#content" onClick={focusContent}>
        Skip to the content
      </a>
      <header class="top-bar">
        <a class="brand" href={href([])} aria-label="Coordinator, overview">
          <img src="assets/icon.svg" alt="" width="28" height="28" />
          <span>Coordinator</span>
        </a>
        {forPublic ? (
          <PublicMenu />
        ) : (
          <>
            <Menu />
            <GlobalSearch />
          </>
        )}
        <div class="tools">
          <ConnectionStatus />
          <FreezeButton />
          <ThemeButton />
          <AccountButton onClick={() => setOpenDialog("account")} />
          <button type="button" aria-label="Keyboard help" onClick={() => setOpenDialog("help")}>
            ?
          </button>
        </div>
      </header>
      <main id="content" tabIndex={-1} class={away ? "away" : ""}>
        <Obstacle />
        {state.phase === "refused" ? <AccessRefused message={state.error.message} /> : children}
      </main>
      <ToastList />
      {openDialog === "help" && <HelpDialog keys={SHORTCUT_HELP} onClose={closeDialog} />}
      {openDialog === "account" && <AccountDialog onClose={closeDialog} />}
    </>
  );
}

function focusContent(event: Event): void {
  event.preventDefault(); // the address belongs to the router
  document.getElementById("content")?.focus();
}

/** Say why no connection comes about, as long as none does. */
function Obstacle() {
  const { connection } = useApp();
  const reason = useObservable(connection.obstacle);
  const { phase } = useObservable(connection.state);
  if (reason === null || phase === "live" || phase === "refused") return null;
  return (
    <section class="card obstacle" role="status">
      <Empty title="No connection to the server.">{reason}</Empty>
    </section>
  );
}

function AccessRefused({ message }: { message: string }) {
  const { connection } = useApp();
  return (
    <section class="card narrow">
      <Empty title="The server does not let this page look.">{message}</Empty>
      <TokenForm />
      <div class="buttons">
        <button type="button" onClick={() => connection.retry()}>
          Try again
        </button>
      </div>
    </section>
  );
}

/** The state of the connection; screen readers say it only when it changes. */
function ConnectionStatus() {
  const { connection } = useApp();
  const state = useObservable(connection.state);
  const server = useObservable(connection.server);
  const away = useServerAway();
  const secondsLeft = useCountdown(state.phase === "waiting" ? state.until : null);

  const label = {
    connecting: server === null ? "Connecting …" : "Reconnecting",
    live: "Live",
    waiting: "Reconnecting",
    refused: "Not allowed",
    paused: "Paused",
  }[state.phase];

  return (
    <div class={`connection ${state.phase}`}>
      <span class="dot" aria-hidden="true" />
      <span role="status" title={server === null ? undefined : `node ${server.node}, version ${server.version}`}>
        {label}
      </span>
      {away && <span class="last-seen">last seen {timeOfDay(connection.lastMessageAt)}</span>}
      {state.phase === "waiting" && (
        <>
          <span class="muted" aria-hidden="true">
            in {secondsLeft} s
          </span>
          <button type="button" onClick={() => connection.retry()}>
            Now
          </button>
        </>
      )}
    </div>
  );
}

/** Return the seconds left until a time in milliseconds since 1970; 0 without one. */
function useCountdown(until: number | null): number {
  const [, redraw] = useState({});

  useEffect(() => {
    if (until === null) return;
    const timer = setInterval(() => redraw({}), 250);
    return () => clearInterval(timer);
  }, [until]);

  return until === null ? 0 : Math.max(0, Math.ceil((until - Date.now()) / 1000));
}

/** Tells with whose rights the reader looks. */
function AccountButton({ onClick }: { onClick(): void }) {
  const role = useObservable(useApp().connection.role);
  return (
    <button type="button" class={`account ${role}`} onClick={onClick}>
      <span class="visually-hidden">Account: </span>
      {{ viewer: "Viewer", operator: "Operator", admin: "Admin" }[role]}
    </button>
  );
}

function FreezeButton() {
  const { connection } = useApp();
  const frozenAt = useObservable(connection.frozenAt);
  return (
    <button
      type="button"
      class={frozenAt === null ? "" : "frozen"}
      aria-pressed={frozenAt !== null}
      title={frozenAt === null ? "Hold what is shown" : `Held since ${timeOfDay(frozenAt)}`}
      onClick={() => connection.setFrozen(frozenAt === null)}
    >
      {frozenAt === null ? "Freeze" : `Frozen ${timeOfDay(frozenAt)}`}
    </button>
  );
}

function ThemeButton() {
  const { preferences } = useApp();
  const theme = useObservable(preferences.theme);
  return (
    <button type="button" title="Light, dark, or as the system" onClick={() => nextTheme(preferences)}>
      <span aria-hidden="true">◐ </span>
      <span class="visually-hidden">Theme: </span>
      <span class="theme-name">{{ system: "Auto", light: "Light", dark: "Dark" }[theme]}</span>
    </button>
  );
}

function nextTheme(preferences: Preferences): void {
  const next = (THEMES.indexOf(preferences.theme.value) + 1) % THEMES.length;
  preferences.setTheme(THEMES[next] ?? "system");
}

function ToastList() {
  const { toasts } = useApp();
  const shown = useObservable(toasts.shown);
  return (
    <div class="toasts" role="status">
      {shown.map((toast) => (
        <p key={toast.id}>{toast.text}</p>
      ))}
    </div>
  );
}

/** Listen to single keys, unless the reader has turned them off or types into a field. */
function useShortcuts(showHelp: () => void): void {
  const { connection, preferences, router } = useApp();
  const afterG = useRef(false);

  useEffect(() => {
    const onKeyDown = (event: KeyboardEvent): void => {
      if (!preferences.shortcuts.value || event.ctrlKey || event.metaKey || event.altKey) return;
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea, dialog") !== null) return;

      const page = afterG.current ? MENU_PAGES.find(({ key }) => key === event.key) : undefined;
      afterG.current = event.key === "g";
      if (page !== undefined) router.navigate(page.path ? [page.path] : []);
      else if (event.key === "?") showHelp();
      else if (event.key === "f") connection.setFrozen(connection.frozenAt.value === null);
      else if (event.key === "t") nextTheme(preferences);
      else if (event.key === "/") document.querySelector<HTMLElement>("[data-search]")?.focus();
      else if (event.key === "k") document.querySelector<HTMLElement>("[data-global-search]")?.focus();
      else return;
      event.preventDefault();
    };

    addEventListener("keydown", onKeyDown);
    return () => removeEventListener("keydown", onKeyDown);
  }, [connection, preferences, router]);
}
