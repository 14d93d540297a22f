// Entry point: starts the connection and draws the page that the address names.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Empty } from "./components";
import { StatsConnection } from "./connection";
import { type App, AppContext, useApp, useServerAway } from "./context";
import { SeenPages } from "./cursors";
import { Observable, useObservable } from "./observable";
import { PageHead } from "./page_head";
import { ActivityPage } from "./pages/activity";
import { AddItemsPage } from "./pages/add_items";
import { AddServicePage } from "./pages/add_service";
import { AllResultsPage } from "./pages/all_results";
import { BucketPage } from "./pages/bucket";
import { BucketsPage } from "./pages/buckets";
import { ClientPage } from "./pages/client";
import { ClientsPage } from "./pages/clients";
import { EventsPage } from "./pages/events";
import { ItemPage } from "./pages/item";
import { JoinPage } from "./pages/join";
import { LeaderboardPage } from "./pages/leaderboard";
import { NodesPage } from "./pages/nodes";
import { OverviewPage } from "./pages/overview";
import { ProjectPage } from "./pages/project";
import { ServicePage } from "./pages/service";
import { ServicesPage } from "./pages/services";
import { TokensPage } from "./pages/tokens";
import { VolunteerPage } from "./pages/volunteer";
import { Preferences } from "./preferences";
import { href, Router } from "./route";
import { Shell } from "./shell";
import { pageTitle, troubleText } from "./title";
import { Toasts } from "./toasts";
import { writeVisibly } from "./visible";
import type { Overview } from "./wire";

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
      return name === undefined ? <BucketsPage /> : <BucketPage key={name} bucket={name} />;
    case "items":
      return <ItemPage key={name} item={name ?? ""} />;
    case "nodes":
      return <NodesPage />;
    case "events":
      return <EventsPage />;
    case "leaderboard":
      return <LeaderboardPage />;
    case "project":
      return <ProjectPage />;
    case "volunteers":
      return <VolunteerPage key={name} client={name ?? ""} />;
    case "join":
      return <JoinPage />;
    case "add-items":
      return <AddItemsPage />;
    case "results":
      return <AllResultsPage />;
    case "add-service":
      return <AddServicePage />;
    case "tokens":
      return <TokensPage />;
    case "activity":
      return <ActivityPage />;
    default:
      return (
        <>
          <PageHead title="Not here" />
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
    if (shownAddress.current === address) return;

    shownAddress.current = address;
    scrollTo(0, 0);
    // so that screen readers read the new page out
    document.querySelector<HTMLElement>("main h1")?.focus({ preventScroll: true });
  }, [address]);

  return <CurrentPage path={path} />;
}

/** Keeps the title of the tab. */
function PageTitle() {
  const app = useApp();
  const { connection, router } = app;
  const address = useObservable(router.route).path.join("/");
  const heading = useObservable(app.heading);
  const { phase } = useObservable(connection.state);
  const overview = useObservable(connection.snapshotOf("overview"));
  const away = useServerAway();
  const trouble = troubleText(phase, away, address === "" ? ((overview?.data as Overview | undefined) ?? null) : null);

  useEffect(() => {
    const shown = heading ?? document.querySelector("main h1")?.textContent ?? null;
    document.title = pageTitle(address === "" ? null : shown, trouble);
  }, [address, heading, trouble]);

  return null;
}

function start(): void {
  const preferences = new Preferences();
  const app: App = {
    preferences,
    connection: new StatsConnection(preferences.token.value),
    router: new Router(),
    toasts: new Toasts(),
    seenPages: new SeenPages(sessionStorage),
    heading: new Observable<string | null>(null),
  };

  writeVisibly();
  const root = document.createElement("div");
  document.body.append(root);
  render(
    <AppContext.Provider value={app}>
      <Shell>
        <Pages />
        <PageTitle />
      </Shell>
    </AppContext.Provider>,
    root,
  );
  app.connection.start();
}

start();
