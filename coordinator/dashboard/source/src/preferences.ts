import { Cell } from "./cell";

export type Theme = "system" | "light" | "dark";

const THEME = "coordinator.theme";
const SHORTCUTS = "coordinator.shortcuts";
const TOKEN = "coordinator.token";

/** What the reader has chosen.  The token lives as long as the tab; the rest stays. */
export class Preferences {
  readonly theme: Cell<Theme>;
  readonly shortcuts: Cell<boolean>;
  readonly token: Cell<string | null>;

  constructor() {
    const theme = localStorage.getItem(THEME);
    this.theme = new Cell<Theme>(theme === "light" || theme === "dark" ? theme : "system");
    this.shortcuts = new Cell(localStorage.getItem(SHORTCUTS) !== "off");
    this.token = new Cell(sessionStorage.getItem(TOKEN));
    this.apply();
  }

  setTheme(theme: Theme): void {
    if (theme === "system") localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, theme);
    this.theme.set(theme);
    this.apply();
  }

  setShortcuts(on: boolean): void {
    if (on) localStorage.removeItem(SHORTCUTS);
    else localStorage.setItem(SHORTCUTS, "off");
    this.shortcuts.set(on);
  }

  setToken(token: string | null): void {
    if (token === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, token);
    this.token.set(token);
  }

  private apply(): void {
    document.documentElement.dataset.theme = this.theme.value;
  }
}
