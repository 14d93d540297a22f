// The lines of a file of any size; only a part of it is in memory at any time.

/** Bytes of one line without its end; of a longer one only the beginning is kept. */
export const MAX_LINE_BYTES = 64 * 1024;
/** Bytes of a line that is too long that are kept. */
const BEGINNING_BYTES = 64;

const UTF16_MARKS: readonly (readonly [number, number, string])[] = [
  [0xff, 0xfe, "utf-16le"],
  [0xfe, 0xff, "utf-16be"],
];

/** A line without its end. */
export interface FileLine {
  number: number;
  text: string;
  /** Why a record with this line is rejected, if it is. */
  fault: string | null;
}

export interface SomeLines {
  lines: readonly FileLine[];
  /** Bytes of the file that were read so far. */
  bytes: number;
}

/** Read the lines of a file in UTF-8, or in UTF-16 with a mark at its beginning. */
export async function* linesOf(file: Blob): AsyncGenerator<SomeLines> {
  const reader = file.stream().getReader();
  const transcode = transcoderFor(new Uint8Array(await file.slice(0, 2).arrayBuffer()));
  const cutter = new LineCutter(transcode !== null);
  let bytes = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    bytes += value.length;
    yield { lines: cutter.take(transcode === null ? value : transcode(value)), bytes };
  }
  if (transcode !== null) yield { lines: cutter.take(transcode(null)), bytes };
  yield { lines: cutter.end(), bytes };
}

/** Make the function that turns UTF-16 into UTF-8, chunk by chunk, the last one null; null where none is needed. */
function transcoderFor(start: Uint8Array): ((chunk: Uint8Array | null) => Uint8Array) | null {
  const mark = UTF16_MARKS.find(([first, second]) => start[0] === first && start[1] === second);
  if (mark === undefined) return null;
  const decoder = new TextDecoder(mark[2]);
  const encoder = new TextEncoder();
  return (chunk) => encoder.encode(chunk === null ? decoder.decode() : decoder.decode(chunk, { stream: true }));
}

/** Cuts bytes into lines. */
class LineCutter {
  private readonly decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  private readonly lenient = new TextDecoder("utf-8", { ignoreBOM: true });
  private number = 0;
  private rest = new Uint8Array(0);
  private tooLong = false;

  constructor(private readonly fromUtf16: boolean) {}

  /** Take the next bytes; returns the lines that end in them. */
  take(chunk: Uint8Array): FileLine[] {
    const lines: FileLine[] = [];
    let at = 0;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, at)) {
      this.keep(chunk.subarray(at, end));
      lines.push(this.line());
      at = end + 1;
    }
    this.keep(chunk.subarray(at));
    return lines;
  }

  /** Return the last line, if it has no end. */
  end(): FileLine[] {
    return this.rest.length > 0 ? [this.line()] : [];
  }

  private keep(bytes: Uint8Array): void {
    if (this.tooLong) return;
    this.tooLong = this.rest.length + bytes.length > MAX_LINE_BYTES;
    const kept = this.tooLong ? bytes.subarray(0, BEGINNING_BYTES) : bytes;
    if (this.rest.length === 0) this.rest = kept.slice();
    else if (kept.length > 0) {
      const joined = new Uint8Array(this.rest.length + kept.length);
      joined.set(this.rest);
      joined.set(kept, this.rest.length);
      this.rest = joined;
    }
  }

  private line(): FileLine {
    const [bytes, tooLong] = [this.rest, this.tooLong];
    [this.rest, this.tooLong] = [new Uint8Array(0), false];
    this.number += 1;

    let fault = tooLong ? `longer than ${MAX_LINE_BYTES / 1024} KiB` : null;
    if (fault === null && bytes.includes(0)) fault = "it has U+0000";
    let text: string;
    try {
      text = this.decoder.decode(bytes);
    } catch {
      text = this.lenient.decode(bytes);
      fault ??= "not UTF-8";
    }
    if (this.fromUtf16 && text.includes("\uFFFD")) fault ??= "not UTF-16"; // it stands for what was none
    if (this.number === 1 && text.startsWith("\uFEFF")) text = text.slice(1);
    return { number: this.number, text, fault };
  }
}
