// Tabs whose choice is kept in the address: links that the arrow keys reach, and the panel of the one that is chosen.
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { useApp } from "./context";
import { useObservable } from "./observable";
import { href } from "./route";

export interface Tab {
  /** In the address; the first tab is that of an address without one. */
  name: string;
  label: string;
  content(): ComponentChildren;
}

/** Several views of one thing.  What the address has besides belongs to one tab, and goes with it. */
export function TabbedPanels({ label, tabs }: { label: string; tabs: readonly Tab[] }) {
  const { router } = useApp();
  const { path, query } = useObservable(router.route);
  const list = useRef<HTMLDivElement>(null);
  const chosen = tabs.find(({ name }) => name === query.tab) ?? tabs[0];
  if (chosen === undefined) return null;

  const tabHref = (tab: Tab): string => href(path, { tab: tab === tabs[0] ? undefined : tab.name });
  const choose = (tab: Tab): void => {
    location.hash = tabHref(tab);
    list.current?.querySelector<HTMLElement>(`#tab-${tab.name}`)?.focus();
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    const next = nextIndex(event.key, tabs.indexOf(chosen), tabs.length);
    const tab = next === null ? undefined : tabs[next];
    if (tab === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    choose(tab);
  };

  return (
    <>
      <div ref={list} class="tabs" role="tablist" aria-label={label} onKeyDown={onKeyDown}>
        {tabs.map((tab) => (
          <a
            key={tab.name}
            id={`tab-${tab.name}`}
            role="tab"
            href={tabHref(tab)}
            aria-selected={tab === chosen}
            aria-controls={tab === chosen ? "tab-panel" : undefined}
            tabIndex={tab === chosen ? 0 : -1}
          >
            {tab.label}
          </a>
        ))}
      </div>
      <div id="tab-panel" key={chosen.name} class="tab-panel" role="tabpanel" aria-labelledby={`tab-${chosen.name}`}>
        {chosen.content()}
      </div>
    </>
  );
}

/** The place of the tab that a key leads to; null for all other keys. */
export function nextIndex(key: string, index: number, tabs: number): number | null {
  switch (key) {
    case "ArrowRight":
      return (index + 1) % tabs;
    case "ArrowLeft":
      return (index + tabs - 1) % tabs;
    case "Home":
      return 0;
    case "End":
      return tabs - 1;
    default:
      return null;
  }
}
