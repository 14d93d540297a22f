// One record of CSV at a time, which may go over several lines.

/** A record cannot be read. */
export class BadRow extends Error {}

/** Reads the cells of one record, line by line. */
export class RowReader {
  readonly cells: string[] = [];
  private cell = "";
  private quoted = false;

  constructor(private readonly delimiter: string) {}

  /** Read a line, without its line feed; returns whether the record ends with it.  Throws `BadRow`. */
  take(text: string): boolean {
    let at = 0;
    const line = text.endsWith("\r") ? text.slice(0, -1) : text;
    if (!this.quoted && line.includes("\r")) throw new BadRow("a carriage return that ends no line");
    for (;;) {
      if (!this.quoted && line[at] !== '"') {
        const end = line.indexOf(this.delimiter, at);
        this.cells.push(line.slice(at, end < 0 ? line.length : end));
        if (end < 0) return true;
        at = end + 1;
        continue;
      }

      if (!this.quoted) at += 1;
      const end = this.quotedPart(text, at);
      if (end === null) {
        this.cell += "\n";
        return false;
      }
      this.cells.push(this.cell);
      this.cell = "";
      if (end >= line.length) return true;
      if (line[end] !== this.delimiter) throw new BadRow(`${named(this.delimiter)} was expected behind a quoted cell`);
      at = end + 1;
    }
  }

  /** The cell that has begun with a quote and not ended, if there is one. */
  get begun(): string | null {
    return this.quoted ? this.cell : null;
  }

  /** Read on within quotes; returns where they have ended, or null if they go on in the next line. */
  private quotedPart(text: string, start: number): number | null {
    this.quoted = true;
    let at = start;
    for (;;) {
      const quote = text.indexOf('"', at);
      this.cell += text.slice(at, quote < 0 ? text.length : quote);
      if (quote < 0) return null;
      at = quote + 1;
      if (text[at] !== '"') break;
      this.cell += '"';
      at += 1;
    }
    this.quoted = false;
    return at;
  }
}

/** The cells of one line, as well as they can be told: to find out what separates them. */
export function cellsOf(line: string, delimiter: string): string[] {
  const reader = new RowReader(delimiter);
  try {
    reader.take(line);
  } catch {
    return [line];
  }
  return reader.cells.concat(reader.begun ?? []).map((cell) => cell.trim());
}

/** A delimiter as people read it. */
export function named(delimiter: string): string {
  return delimiter === "\t" ? "tab" : `"${delimiter}"`;
}
