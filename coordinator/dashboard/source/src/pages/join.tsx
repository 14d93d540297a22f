// How to take part: the command, ready to be copied.
import { useState } from "preact/hooks";
import { Card, Empty, Loading } from "../components";
import { useTopic } from "../context";
import { CopyableText } from "../copyable";
import { PageHead } from "../page_head";
import type { FirstRows, ServiceRow } from "../wire";

/** The checkers that the program brings, by the plugin of their services. */
const BUILT_IN_CHECKERS = ["dm_check", "follower_check", "following_check"];
const CHECKER_MODULE = "coordinator.client.x_api";

export function JoinPage() {
  const services = useTopic<FirstRows<ServiceRow>>("services")?.data.rows.filter(({ state }) => state === "active");
  return (
    <>
      <PageHead
        title="Take part"
        lead="Your computer checks a few items at a time, as fast as you let it, and can stop whenever you like."
      />
      {services === undefined ? (
        <Loading rows={4} />
      ) : services.length === 0 ? (
        <section class="card">
          <Empty title="There is nothing to take part in now." />
        </section>
      ) : (
        <JoinCards services={services} />
      )}
    </>
  );
}

function JoinCards({ services }: { services: readonly ServiceRow[] }) {
  const [chosen, setChosen] = useState("");
  const [name, setName] = useState("");
  const row = services.find(({ service }) => service === chosen) ?? services[0];
  if (row === undefined) return null;

  return (
    <>
      <Card title="The command">
        <div class="filters">
          <label class="field">
            <span>What to check</span>
            <select value={row.service} onChange={(event) => setChosen(event.currentTarget.value)}>
              {services.map(({ service, title }) => (
                <option key={service} value={service}>
                  {title || service}
                </option>
              ))}
            </select>
          </label>
          <label class="field">
            <span>Your name here (letters, digits, _ . -)</span>
            <input
              maxLength={64}
              autocomplete="off"
              spellcheck={false}
              value={name}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </label>
        </div>
        <CopyableText text={workCommand(row, name)} what="The command" />
      </Card>
      <Card title="What happens then">
        <ol class="steps">
          <li>It asks this server for items, and gives back what it has not checked when you stop it with Ctrl+C.</li>
          <li>
            Where the server wants it, add <code>--enrolment-token</code> with the token that the people who run this
            give you.
          </li>
          <li>
            <code>coordinator work --help</code> tells the rest; <code>--check</code> tries all out beforehand.
          </li>
        </ol>
      </Card>
    </>
  );
}

/** The command that works for a service; names are left out where they could not be a name. */
function workCommand({ service, plugin }: ServiceRow, name: string): string {
  const server = new URL(".", document.baseURI);
  server.protocol = server.protocol.replace("http", "ws");
  const checker = BUILT_IN_CHECKERS.includes(plugin)
    ? `--checker ${CHECKER_MODULE}:${plugin}`
    : "--exec ./check.sh";
  const screenName = /^[A-Za-z0-9_.-]{1,64}$/.test(name) ? ` --screen-name ${name}` : "";
  return `coordinator work --server ${server.href.replace(/\/$/, "")} --service ${service} ${checker}${screenName}`;
}
