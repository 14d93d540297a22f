// The menu: four parts, each with its pages.  On a wide screen two rows of links, on a narrow one a button and a list.
import { useEffect, useRef, useState } from "preact/hooks";
import { useApp } from "./context";
import { useObservable } from "./observable";
import { href } from "./route";

interface MenuPage {
  /** The first part of the page's path; empty for the overview. */
  path: string;
  title: string;
  /** `g` and then this key opens the page. */
  key: string;
}

interface MenuPart {
  title: string;
  /** The first one opens with the part. */
  pages: readonly MenuPage[];
  /** First parts of the paths of pages that belong here and are reached from other pages. */
  inner?: readonly string[];
}

const PARTS: readonly MenuPart[] = [
  { title: "Overview", pages: [{ path: "", title: "Overview", key: "o" }] },
  {
    title: "Work",
    pages: [
      { path: "services", title: "Services", key: "s" },
      { path: "buckets", title: "Buckets", key: "b" },
      { path: "results", title: "Results", key: "r" },
      { path: "add-items", title: "Add items", key: "a" },
    ],
    inner: ["items", "add-service"],
  },
  {
    title: "People",
    pages: [
      { path: "clients", title: "Clients", key: "c" },
      { path: "leaderboard", title: "Leaderboard", key: "l" },
      { path: "join", title: "Take part", key: "j" },
      { path: "project", title: "Public page", key: "p" },
    ],
  },
  {
    title: "System",
    pages: [
      { path: "nodes", title: "Nodes", key: "n" },
      { path: "events", title: "Events", key: "e" },
      { path: "activity", title: "Activity", key: "y" },
      { path: "tokens", title: "Tokens", key: "t" },
    ],
  },
];

/** All pages of the menu. */
export const MENU_PAGES: readonly MenuPage[] = PARTS.flatMap((part) => part.pages);

export function Menu() {
  const current = useObservable(useApp().router.route).path[0] ?? "";
  const currentPart = PARTS.find(({ pages, inner }) => pages.some(({ path }) => path === current) || inner?.includes(current));

  return (
    <>
      <nav class="main-nav" aria-label="Parts">
        {PARTS.map((part) => (
          <a key={part.title} href={pageHref(part.pages[0])} aria-current={part === currentPart ? "true" : undefined}>
            {part.title}
          </a>
        ))}
      </nav>
      {currentPart !== undefined && currentPart.pages.length > 1 && (
        <nav class="sub-nav" aria-label={`Pages of ${currentPart.title}`}>
          <PageLinks pages={currentPart.pages} current={current} />
        </nav>
      )}
      <NarrowMenu part={currentPart} current={current} />
    </>
  );
}

/** First parts of the paths of pages for people who do not operate anything. */
const PUBLIC_PATHS = ["project", "volunteers"];

export function isPublic(path: readonly string[]): boolean {
  return PUBLIC_PATHS.includes(path[0] ?? "");
}

/** The few links that stand on public pages in place of the menu. */
export function PublicMenu() {
  const current = useObservable(useApp().router.route).path[0];
  return (
    <nav class="public-nav" aria-label="Pages">
      <a href={href(["project"])} aria-current={current === "project" ? "page" : undefined}>
        Progress
      </a>
      <a href={href(["leaderboard"])}>Leaderboard</a>
      <a href={href(["join"])}>Take part</a>
    </nav>
  );
}

/** A button that names the current place, and opens the list of all pages. */
function NarrowMenu({ part, current }: { part: MenuPart | undefined; current: string }) {
  const [open, setOpen] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const page = part?.pages.find(({ path }) => path === current)?.title;
  const place = page === part?.title ? part?.title : [part?.title, page].filter(Boolean).join(" · ");

  useEffect(() => setOpen(false), [current]);

  const closeOnEscape = (event: KeyboardEvent): void => {
    if (event.key !== "Escape" || !open) return;
    setOpen(false);
    button.current?.focus();
  };

  return (
    <div class="narrow-menu" onKeyDown={closeOnEscape}>
      <button ref={button} type="button" aria-expanded={open} aria-controls="all-pages" onClick={() => setOpen(!open)}>
        <span aria-hidden="true">☰ </span>
        <span class="visually-hidden">Menu: </span>
        {place || "Menu"}
      </button>
      <nav id="all-pages" aria-label="All pages" hidden={!open}>
        {PARTS.map(({ title, pages }) => (
          <section key={title} aria-label={title}>
            {pages.length > 1 && <p class="muted">{title}</p>}
            <PageLinks pages={pages} current={current} onClick={() => setOpen(false)} />
          </section>
        ))}
      </nav>
    </div>
  );
}

interface PageLinksProps {
  pages: readonly MenuPage[];
  current: string;
  onClick?(): void;
}

function PageLinks({ pages, current, onClick }: PageLinksProps) {
  return pages.map((page) => (
    <a
      key={page.path}
      href={pageHref(page)}
      aria-current={page.path === current ? "page" : undefined}
      {...(onClick === undefined ? {} : { onClick })}
    >
      {page.title}
    </a>
  ));
}

function pageHref(page: MenuPage | undefined): string {
  return href(page?.path ? [page.path] : []);
}
