// Sends the items of a file through the admin channel, some at a time.
import { DistinctTexts } from "./distinct_texts";
import { linesOf } from "./file_lines";
import { canonical, type KeyForm } from "./item_keys";
import { ItemLines, type ItemRecord, type ParsedItem } from "./item_lines";
import { RequestRefused, type Session } from "./session";

/** Items, and characters of them, of one request. */
const ITEMS_PER_REQUEST = 1000;
const CHARACTERS_PER_REQUEST = 200_000;
/** Share of the server's largest message that those may fill: a character takes up to 3 bytes. */
const SHARE_OF_MESSAGE = 0.25;
/** Refused lines that are kept; the others are counted. */
const REFUSED_KEPT = 200;
/** Characters of a refused line that are kept. */
const REFUSED_SHOWN = 80;
/** Milliseconds that one request may last. */
const REQUEST_TIMEOUT_MS = 60_000;

export interface RefusedLine {
  line: number;
  key: string;
  reason: string;
}

export interface UploadProgress {
  /** What the lines are, in words. */
  form: string;
  /** Bytes of the file that were read. */
  bytes: number;
  added: number;
  known: number;
  /** Lines whose key stood in an earlier line; only at the end are all of them told apart from known ones. */
  repeated: number;
  refused: number;
  /** The first of the refused lines. */
  refusedLines: readonly RefusedLine[];
}

export const NOTHING_SENT: UploadProgress = {
  form: "",
  bytes: 0,
  added: 0,
  known: 0,
  repeated: 0,
  refused: 0,
  refusedLines: [],
};

interface UploadOptions {
  services: readonly string[];
  priority: number;
  onProgress(progress: UploadProgress): void;
  isStopped(): boolean;
}

/** Add the items of a file; rejects with `UnclearText`, `RequestRefused` or `ConnectionLost`. */
export async function uploadItems(session: Session, file: Blob, options: UploadOptions): Promise<UploadProgress> {
  const { limits } = (await session.request("limits")) as unknown as { limits: { max_message_bytes: number } };
  const { key_form } = (await session.request("stats")) as unknown as { key_form: KeyForm };
  const most = Math.min(CHARACTERS_PER_REQUEST, SHARE_OF_MESSAGE * limits.max_message_bytes);
  const upload = new Upload(session, key_form, most, options);
  const lines = new ItemLines();

  for await (const some of linesOf(file)) {
    await upload.take(lines.take(some.lines));
    if (options.isStopped()) return upload.finish();
    upload.progress = { ...upload.progress, bytes: some.bytes, form: lines.form };
  }
  await upload.take(lines.end());
  await upload.send();
  return upload.finish();
}

interface ItemsAdded {
  added: number;
  known: number;
  refused: { index: number; key: string | null; reason: string }[];
}

class Upload {
  progress = NOTHING_SENT;
  private batch: ParsedItem[] = [];
  private characters = 0;
  private readonly keys = new DistinctTexts();

  constructor(
    private readonly session: Session,
    private readonly keyForm: KeyForm,
    private readonly mostCharacters: number,
    private readonly options: UploadOptions,
  ) {}

  /** Take records, and send each batch that is full. */
  async take(records: readonly ItemRecord[]): Promise<void> {
    for (const record of records) {
      if (this.options.isStopped()) return;
      if ("reason" in record) {
        this.refuse([{ line: record.line, key: record.text.slice(0, REFUSED_SHOWN), reason: record.reason }]);
        continue;
      }
      this.batch.push(record);
      this.characters += record.json.length + 1;
      if (this.batch.length >= ITEMS_PER_REQUEST || this.characters >= this.mostCharacters) await this.send();
    }
  }

  /** Send what was taken. */
  async send(): Promise<void> {
    const sent = this.batch;
    [this.batch, this.characters] = [[], 0];
    if (sent.length === 0) return;
    const answer = await this.addPatiently(sent);

    const bad = new Set(answer.refused.map(({ index }) => index));
    sent.forEach(({ key }, index) => {
      if (!bad.has(index)) this.keys.add(canonical(key, this.keyForm));
    });
    const { added, known, repeated } = this.progress;
    this.progress = {
      ...this.progress,
      added: added + answer.added,
      known: known + answer.known,
      repeated: repeated + sent.length - answer.added - answer.known - answer.refused.length,
    };
    this.refuse(answer.refused.map(({ index, key, reason }) => ({ line: sent[index]?.line ?? 0, key: key ?? "", reason })));
    this.options.onProgress(this.progress);
  }

  /** Count lines of one key as such: a server that is told a key in two requests knows it the second time. */
  async finish(): Promise<UploadProgress> {
    const { added, known } = this.progress;
    const distinct = await this.keys.count();
    const knownBefore = known - Math.max(0, added + known - distinct);
    this.progress = { ...this.progress, known: knownBefore, repeated: this.keys.given - distinct };
    this.options.onProgress(this.progress);
    return this.progress;
  }

  private refuse(lines: readonly RefusedLine[]): void {
    const refusedLines = [...this.progress.refusedLines, ...lines].slice(0, REFUSED_KEPT);
    this.progress = { ...this.progress, refused: this.progress.refused + lines.length, refusedLines };
  }

  /** Send one request; where the server says that it was too much at a time, again when it says. */
  private async addPatiently(items: readonly ParsedItem[]): Promise<ItemsAdded> {
    const { services, priority } = this.options;
    const rest = JSON.stringify(services.length > 0 ? { priority, services } : { priority });
    const fields = `{"items":[${items.map(({ json }) => json).join(",")}],${rest.slice(1)}`;
    for (;;) {
      try {
        return (await this.session.requestEncoded("item.add", fields, REQUEST_TIMEOUT_MS)) as unknown as ItemsAdded;
      } catch (failure) {
        if (!(failure instanceof RequestRefused) || failure.code !== "rate_limited") throw failure;
        await new Promise((resolve) => setTimeout(resolve, (failure.error.retry_after ?? 1) * 1000));
      }
    }
  }
}
