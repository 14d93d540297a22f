// Sends the items of a file through the admin channel, some at a time.
import { type Item, ItemLines, linesOf } from "./item_lines";
import { RequestRefused, type Session } from "./session";

/** Items, and characters of them, of one request. */
const ITEMS_PER_REQUEST = 1000;
const CHARACTERS_PER_REQUEST = 200_000;
/** Refused lines that are kept; the others are counted. */
const REFUSED_KEPT = 200;
/** Milliseconds that one request may last. */
const REQUEST_TIMEOUT_MS = 60_000;

export interface RefusedLine {
  line: number;
  key: string;
  reason: string;
}

export interface UploadProgress {
  /** Bytes of the file that were read. */
  bytes: number;
  added: number;
  known: number;
  /** Lines whose key stood in an earlier line of the same request. */
  repeated: number;
  refused: number;
  /** The first of the refused lines. */
  refusedLines: readonly RefusedLine[];
}

export const NOTHING_SENT: UploadProgress = { bytes: 0, added: 0, known: 0, repeated: 0, refused: 0, refusedLines: [] };

interface UploadOptions {
  services: readonly string[];
  priority: number;
  onProgress(progress: UploadProgress): void;
  isStopped(): boolean;
}

/** Add the items of a file; rejects with `UnclearText`, `RequestRefused` or `ConnectionLost`. */
export async function uploadItems(session: Session, file: Blob, options: UploadOptions): Promise<UploadProgress> {
  const lines = new ItemLines();
  let progress = NOTHING_SENT;
  let batch: { line: number; item: Item }[] = [];
  let characters = 0;

  const refuse = (refused: RefusedLine[]): void => {
    const refusedLines = [...progress.refusedLines, ...refused].slice(0, REFUSED_KEPT);
    progress = { ...progress, refused: progress.refused + refused.length, refusedLines };
  };
  const send = async (): Promise<void> => {
    const sent = batch;
    [batch, characters] = [[], 0];
    if (sent.length === 0) return;
    const fields = { items: sent.map(({ item }) => item), priority: options.priority };
    const answer = await addPatiently(session, options.services.length ? { ...fields, services: options.services } : fields);
    const repeated = sent.length - answer.added - answer.known - answer.refused.length;
    progress = {
      ...progress,
      added: progress.added + answer.added,
      known: progress.known + answer.known,
      repeated: progress.repeated + repeated,
    };
    refuse(answer.refused.map(({ index, key, reason }) => ({ line: sent[index]?.line ?? 0, key: key ?? "", reason })));
    options.onProgress(progress);
  };

  for await (const { text, bytes } of linesOf(file)) {
    if (options.isStopped()) return progress;
    progress = { ...progress, bytes };
    const read = lines.next(text);
    if (read === null) continue;
    if (read.item === null) refuse([{ line: read.line, key: text.slice(0, 80), reason: read.reason }]);
    else {
      batch.push({ line: read.line, item: read.item });
      characters += text.length;
    }
    if (batch.length >= ITEMS_PER_REQUEST || characters >= CHARACTERS_PER_REQUEST) await send();
  }
  await send();
  progress = { ...progress, bytes: file.size };
  options.onProgress(progress);
  return progress;
}

interface ItemsAdded {
  added: number;
  known: number;
  refused: { index: number; key: string | null; reason: string }[];
}

/** Send one request; where the server says that it was too much at a time, again when it says. */
async function addPatiently(session: Session, fields: object): Promise<ItemsAdded> {
  for (;;) {
    try {
      return (await session.request("item.add", fields, REQUEST_TIMEOUT_MS)) as unknown as ItemsAdded;
    } catch (failure) {
      if (!(failure instanceof RequestRefused) || failure.code !== "rate_limited") throw failure;
      await new Promise((resolve) => setTimeout(resolve, (failure.error.retry_after ?? 1) * 1000));
    }
  }
}
