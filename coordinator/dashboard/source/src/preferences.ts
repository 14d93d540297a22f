import { Observable } from "./observable";

export type Theme = "system" | "light" | "dark";

// Keys in the browser's storage.
const THEME_KEY = "coordinator.theme";
const SHORTCUTS_KEY = "coordinator.shortcuts";
const TOKEN_KEY = "coordinator.token";

/** The reader's choices.  The token lives as long as the tab; the rest stays in the browser. */
export class Preferences {
  readonly theme: Observable<Theme>;
  readonly shortcuts: Observable<boolean>;
  readonly token: Observable<string | null>;

  constructor() {
    const theme = localStorage.getItem(THEME_KEY);
    this.theme = new Observable<Theme>(theme === "light" || theme === "dark" ? theme : "system");
    this.shortcuts = new Observable(localStorage.getItem(SHORTCUTS_KEY) !== "off");
    this.token = new Observable(sessionStorage.getItem(TOKEN_KEY));
    this.applyTheme();
  }

  setTheme(theme: Theme): void {
    if (theme === "system") localStorage.removeItem(THEME_KEY);
    else localStorage.setItem(THEME_KEY, theme);
    this.theme.set(theme);
    this.applyTheme();
  }

  setShortcuts(on: boolean): void {
    if (on) localStorage.removeItem(SHORTCUTS_KEY);
    else localStorage.setItem(SHORTCUTS_KEY, "off");
    this.shortcuts.set(on);
  }

  setToken(token: string | null): void {
    if (token === null) sessionStorage.removeItem(TOKEN_KEY);
    else sessionStorage.setItem(TOKEN_KEY, token);
    this.token.set(token);
  }

  private applyTheme(): void {
    document.documentElement.dataset.theme = this.theme.value;
  }
}
