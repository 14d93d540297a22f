// Items into the catalogue and the services: pasted, or out of a file of any size.
import { useEffect, useRef, useState } from "preact/hooks";
import { Card, NeedsRole, Name } from "../components";
import { useApp, useTopic } from "../context";
import { useHasRole } from "../dialog";
import { count, percent, plural } from "../format";
import { NOTHING_SENT, type UploadProgress, uploadItems } from "../item_upload";
import { inAdminSession } from "../operation";
import { PageHead } from "../page_head";
import type { FirstRows, ServiceRow } from "../wire";

export function AddItemsPage() {
  const operator = useHasRole("operator");
  return (
    <>
      <PageHead title="Add items" lead="Keys one to a line, CSV with a header that names the key, or JSON Lines." />
      {operator ? (
        <AddForm />
      ) : (
        <NeedsRole role="operator" />
      )}
    </>
  );
}

interface Upload {
  progress: UploadProgress;
  size: number;
  state: "running" | "done" | "stopped";
}

function AddForm() {
  const { preferences } = useApp();
  const services = useTopic<FirstRows<ServiceRow>>("services")?.data.rows ?? [];
  const [text, setText] = useState("");
  const [file, setFile] = useState<File | null>(null);
  const [service, setService] = useState("");
  const [priority, setPriority] = useState("100");
  const [upload, setUpload] = useState<Upload | null>(null);
  const [fault, setFault] = useState<string | null>(null);
  const stopped = useRef(false);
  useEffect(() => () => void (stopped.current = true), []);

  const ready = (file !== null || text.trim() !== "") && upload?.state !== "running";
  const send = async (): Promise<void> => {
    const source: Blob = file ?? new Blob([text]);
    const show = (progress: UploadProgress): void => setUpload({ progress, size: source.size, state: "running" });
    stopped.current = false;
    setFault(null);
    show(NOTHING_SENT);
    try {
      const progress = await inAdminSession(preferences.token.value ?? "", (session) =>
        uploadItems(session, source, {
          services: service ? [service] : [],
          priority: Number(priority),
          onProgress: show,
          isStopped: () => stopped.current,
        }),
      );
      setUpload({ progress, size: source.size, state: stopped.current ? "stopped" : "done" });
    } catch (failure) {
      setFault(failure instanceof Error ? failure.message : String(failure));
      setUpload((before) => before && { ...before, state: "stopped" });
    }
  };

  return (
    <>
      <section class="card" aria-label="Items">
        <form
          class="stack"
          onSubmit={(event) => {
            event.preventDefault();
            if (ready) void send();
          }}
        >
          <label class="field">
            <span>Pasted items</span>
            <textarea
              rows={8}
              spellcheck={false}
              value={text}
              disabled={file !== null}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          </label>
          <label class="field">
            <span>Or a file</span>
            <input type="file" onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)} />
          </label>
          <div class="filters">
            <label class="field">
              <span>Service</span>
              <select value={service} onChange={(event) => setService(event.currentTarget.value)}>
                <option value="">all that take them</option>
                {services.map((row) => (
                  <option key={row.service}>{row.service}</option>
                ))}
              </select>
            </label>
            <label class="field">
              <span>Priority (0 is first, 100 is usual)</span>
              <input
                type="number"
                min={0}
                max={200}
                required
                value={priority}
                onInput={(event) => setPriority(event.currentTarget.value)}
              />
            </label>
          </div>
          <div class="buttons">
            {upload?.state === "running" && (
              <button type="button" onClick={() => (stopped.current = true)}>
                Stop
              </button>
            )}
            <button type="submit" class="primary" disabled={!ready}>
              Add
            </button>
          </div>
          {fault !== null && (
            <p class="refusal" role="alert">
              {fault}
            </p>
          )}
        </form>
      </section>
      {upload !== null && <UploadCard upload={upload} />}
    </>
  );
}

function UploadCard({ upload: { progress, size, state } }: { upload: Upload }) {
  const { form, added, known, repeated, refused, refusedLines, bytes } = progress;
  const word = { running: "Adding …", done: "Done.", stopped: "Stopped." }[state];
  return (
    <Card title="What was added">
      {form !== "" && <p class="muted">Read as {form}.</p>}
      {state === "done" && added + known + refused === 0 && <p>There were no items in it.</p>}
      <progress max={Math.max(1, size)} value={state === "done" ? Math.max(1, size) : bytes} aria-label="Read" />
      <p role="status">
        {word} {percent(state === "done" ? size : bytes, size)} read: <b>{count(added)} new</b>, {count(known)} known,{" "}
        {repeated > 0 && `${count(repeated)} repeated, `}
        {count(refused)} refused.
      </p>
      {refusedLines.length > 0 && (
        <>
          <ul class="plain refused-lines" aria-label="Refused lines">
            {refusedLines.map((line) => (
              <li key={`${line.line} ${line.key}`}>
                line {count(line.line)} <Name text={line.key} /> <span class="muted">{line.reason}</span>
              </li>
            ))}
          </ul>
          {refused > refusedLines.length && <p class="muted">And {plural(refused - refusedLines.length, "more line")}.</p>}
        </>
      )}
    </Card>
  );
}
