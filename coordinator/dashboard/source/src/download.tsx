// Results that match a filter, written to a file page by page.
import { useEffect, useRef, useState } from "preact/hooks";
import { useApp } from "./context";
import { count } from "./format";
import { fileHead, fileLine, type FileFormat } from "./result-file";
import type { ResultField } from "./result-fields";
import type { Filter, ListedResult } from "./wire";

const ROWS_PER_PAGE = 500;
/** Results of one file: the browser holds all of it in memory. */
const MAX_ROWS = 100_000;

const FORMATS: readonly (readonly [FileFormat, string])[] = [
  ["csv", "CSV"],
  ["jsonl", "JSON Lines"],
];

interface DownloadProps {
  /** The file's name, without its ending. */
  name: string;
  filter: Filter;
  fields: readonly ResultField[];
}

/** Buttons that save what the filter matches; while one runs, its progress and a way to stop it. */
export function DownloadButtons({ name, filter, fields }: DownloadProps) {
  const { connection, toasts } = useApp();
  const [rows, setRows] = useState<number | null>(null);
  const stopped = useRef(false);
  useEffect(() => () => void (stopped.current = true), []);

  const download = async (format: FileFormat): Promise<void> => {
    stopped.current = false;
    const chunks: string[] = [fileHead(format, fields)];
    let found = 0;
    let after: string | null = null;
    setRows(0);
    try {
      do {
        const page = await connection.readPage("results", filter, after, ROWS_PER_PAGE);
        for (const row of page.rows as ListedResult[]) chunks.push(fileLine(format, row, fields));
        found += page.rows.length;
        after = page.next;
        setRows(found);
      } while (after !== null && found < MAX_ROWS && !stopped.current);
      if (stopped.current) return;
      save(`${name}.${format}`, chunks);
      toasts.add(
        after === null
          ? `${count(found)} results saved.`
          : `The newest ${count(found)} results saved; \`coordinator result export\` writes all.`,
      );
    } catch (failure) {
      toasts.add(failure instanceof Error ? failure.message : String(failure));
    } finally {
      setRows(null);
    }
  };

  if (rows !== null) {
    return (
      <span class="download">
        <span role="status">{count(rows)} results read …</span>
        <button type="button" onClick={() => (stopped.current = true)}>
          Stop
        </button>
      </span>
    );
  }
  return (
    <span class="download">
      {FORMATS.map(([format, title]) => (
        <button key={format} type="button" onClick={() => void download(format)}>
          Save as {title}
        </button>
      ))}
    </span>
  );
}

function save(name: string, chunks: readonly string[]): void {
  const address = URL.createObjectURL(new Blob([...chunks], { type: "text/plain;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  URL.revokeObjectURL(address);
}
