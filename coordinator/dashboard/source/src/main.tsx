// Entry point: starts the connection and draws the page that the address names.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Empty } from "./components";
import { StatsConnection } from "./connection";
import { type App, AppContext, useApp } from "./context";
import { useObservable } from "./observable";
import { BucketsPage } from "./pages/buckets";
import { ClientPage } from "./pages/client";
import { ClientsPage } from "./pages/clients";
import { EventsPage } from "./pages/events";
import { LeaderboardPage } from "./pages/leaderboard";
import { NodesPage } from "./pages/nodes";
import { OverviewPage } from "./pages/overview";
import { ServicePage } from "./pages/service";
import { ServicesPage } from "./pages/services";
import { Preferences } from "./preferences";
import { href, Router } from "./route";
import { Shell } from "./shell";
import { Toasts } from "./toasts";

function CurrentPage({ path }: { path: string[] }) {
  const [page, name] = path;
  switch (page) {
    case undefined:
      return <OverviewPage />;
    case "services":
      return name === undefined ? <ServicesPage /> : <ServicePage key={name} service={name} />;
    case "clients":
      return name === undefined ? <ClientsPage /> : <ClientPage key={name} client={name} />;
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
  const { path } = useObservable(useApp().router.route);
  const address = path.join("/");
  const shownAddress = useRef(address);

  useEffect(() => {
    const heading = document.querySelector<HTMLElement>("main h1");
    document.title = address === "" ? "Coordinator" : `${heading?.textContent ?? ""} · Coordinator`;
    if (shownAddress.current === address) return;

    shownAddress.current = address;
    scrollTo(0, 0);
    heading?.focus({ preventScroll: true }); // so that screen readers read the new page out
  }, [address]);

  return <CurrentPage path={path} />;
}

function start(): void {
  const preferences = new Preferences();
  const app: App = {
    preferences,
    connection: new StatsConnection(preferences.token.value),
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
  app.connection.start();
}

start();
