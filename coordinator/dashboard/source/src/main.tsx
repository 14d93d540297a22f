// The whole page: starts the connection and draws what the address names.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { useCell } from "./cell";
import { type App, AppContext, useApp } from "./context";
import { Live } from "./live";
import { BucketsPage } from "./pages/buckets";
import { ClientPage } from "./pages/client";
import { ClientsPage } from "./pages/clients";
import { EventsPage } from "./pages/events";
import { LeaderboardPage } from "./pages/leaderboard";
import { NodesPage } from "./pages/nodes";
import { Overview } from "./pages/overview";
import { ServicePage } from "./pages/service";
import { ServicesPage } from "./pages/services";
import { Empty } from "./parts";
import { Preferences } from "./preferences";
import { href, Router } from "./route";
import { Shell } from "./shell";
import { Toasts } from "./toasts";

function Current({ path }: { path: string[] }) {
  const [place, one] = path;
  switch (place) {
    case undefined:
      return <Overview />;
    case "services":
      return one === undefined ? <ServicesPage /> : <ServicePage key={one} service={one} />;
    case "clients":
      return one === undefined ? <ClientsPage /> : <ClientPage key={one} client={one} />;
    case "buckets":
      return <BucketsPage />;
    case "nodes":
      return <NodesPage />;
    case "events":
      return <EventsPage />;
    case "leaderboard":
      return <LeaderboardPage />;
    default:
      return (
        <>
          <h1 tabIndex={-1}>Not here</h1>
          <Empty title="There is no such page.">
            <a href={href([])}>To the overview</a>
          </Empty>
        </>
      );
  }
}

function Pages() {
  const { path } = useCell(useApp().router.route);
  const place = path.join("/");
  const before = useRef(place);
  useEffect(() => {
    const heading = document.querySelector<HTMLElement>("main h1");
    document.title = place === "" ? "Coordinator" : `${heading?.textContent ?? ""} · Coordinator`;
    if (before.current === place) return;
    before.current = place;
    scrollTo(0, 0);
    heading?.focus({ preventScroll: true }); // so that the new page is read out
  }, [place]);
  return <Current path={path} />;
}

function start(): void {
  const preferences = new Preferences();
  const app: App = {
    preferences,
    live: new Live(preferences.token.value),
    router: new Router(),
    toasts: new Toasts(),
  };
  const root = document.createElement("div");
  document.body.append(root);
  render(
    <AppContext.Provider value={app}>
      <Shell>
        <Pages />
      </Shell>
    </AppContext.Provider>,
    root,
  );
  app.live.start();
}

start();
