// Counting how many different texts there are among any number of them.

/** Texts of which the hashes are in memory; those before lie sorted in blobs, which the browser may keep on disk. */
const RUN = 1 << 20;
/** Hashes of a run that are in memory while all are counted. */
const READ_AT_ONCE = 1 << 13;

/** Counts different texts by their hashes of 53 bits: of ten million, two are mixed up once in 180 times. */
export class DistinctTexts {
  private newest: Float64Array<ArrayBuffer>;
  private used = 0;
  private readonly runs: Blob[] = [];
  /** The number of texts given so far. */
  given = 0;

  constructor(private readonly most = RUN) {
    this.newest = new Float64Array(Math.min(most, 1024));
  }

  add(text: string): void {
    if (this.used === this.newest.length) {
      if (this.used === this.most) this.putAway();
      else {
        const larger = new Float64Array(Math.min(this.most, 2 * this.used));
        larger.set(this.newest);
        this.newest = larger;
      }
    }
    this.newest[this.used] = hash(text);
    this.used += 1;
    this.given += 1;
  }

  /** Return how many different texts there were. */
  async count(): Promise<number> {
    const newest = this.newest.slice(0, this.used).sort();
    const runs = [new Run(new Blob([newest])), ...this.runs.map((run) => new Run(run))];
    for (const run of runs) await run.begin();

    let different = 0;
    for (;;) {
      let least = Infinity;
      for (const run of runs) least = Math.min(least, run.next);
      if (least === Infinity) return different;
      different += 1;
      for (const run of runs) {
        while (run.next === least) if (!run.step()) await run.begin();
      }
    }
  }

  private putAway(): void {
    this.runs.push(new Blob([this.newest.sort()]));
    this.newest = new Float64Array(this.most);
    this.used = 0;
  }
}

/** Sorted hashes, read bit by bit. */
class Run {
  /** The hash that is next; Infinity at the end. */
  next = Infinity;
  private hashes = new Float64Array(0);
  private at = 0;
  private bytes = 0;

  constructor(private readonly blob: Blob) {}

  /** Read the next hashes. */
  async begin(): Promise<void> {
    const end = this.bytes + 8 * READ_AT_ONCE;
    this.hashes = new Float64Array(await this.blob.slice(this.bytes, end).arrayBuffer());
    this.bytes = end;
    this.at = 0;
    this.next = this.hashes[0] ?? Infinity;
  }

  /** Go on by one; returns whether it was at hand. */
  step(): boolean {
    this.at += 1;
    if (this.at >= this.hashes.length) return this.hashes.length === 0;
    this.next = this.hashes[this.at] as number;
    return true;
  }
}

/** Hash a text to 53 bits: two sums of 32 bits, one as FNV-1a has it, both finished so that each bit counts. */
function hash(text: string): number {
  let [first, second] = [0x811c9dc5, 0];
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    first = Math.imul(first ^ unit, 0x01000193);
    second = Math.imul(((second << 5) | (second >>> 27)) ^ unit, 0x9e3779b1);
  }
  return finished(first) * 2 ** 21 + (finished(second) >>> 11);
}

/** The last step of MurmurHash3. */
function finished(sum: number): number {
  const once = Math.imul(sum ^ (sum >>> 16), 0x85ebca6b);
  const twice = Math.imul(once ^ (once >>> 13), 0xc2b2ae35);
  return (twice ^ (twice >>> 16)) >>> 0;
}
